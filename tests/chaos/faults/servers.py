"""Faults of Postgres and Redis themselves."""

import os
import signal

import psycopg

from tests.chaos.faults.strike import ANSWERS_S, Steps, Strike


def lose(strike: Strike) -> Steps:
    """Kill Redis and let it come back empty."""
    server = strike.stack.redis
    try:
        server.kill()
        for path in server.data_dir.rglob("*"):
            if path.is_file():
                path.unlink()
        yield from strike.lasting()
    finally:
        server.start()


def lose_pooler(strike: Strike) -> Steps:
    """Kill PgBouncer, with all transactions that are under way through it, and start it again."""
    assert strike.stack.pooler is not None
    try:
        strike.stack.pooler.kill()
        yield from strike.lasting()
    finally:
        strike.stack.pooler.launch()


def flush(strike: Strike) -> Steps:
    """Let Redis forget everything."""
    with strike.redis() as client:
        client.flushall()
    yield


def pause(strike: Strike) -> Steps:
    """Let Redis answer nobody."""
    with strike.redis() as client:
        client.client_pause(round(strike.lasts_s * 1000))
    yield from strike.lasting()


def restart(strike: Strike) -> Steps:
    """Shut Postgres down as its administrator would who cannot wait; it recovers as it starts."""
    server = strike.stack.postgres
    try:
        os.kill(server.pid, signal.SIGQUIT)
        yield from strike.lasting()
    finally:
        server.kill()
        server.start()


def terminate(strike: Strike) -> Steps:
    """End one connection of the service in Postgres, or all of them."""
    limit = "LIMIT 1" if strike.target.endswith("/one") else ""
    with psycopg.connect(strike.stack.postgres.url, autocommit=True, connect_timeout=int(ANSWERS_S)) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
            f" WHERE application_name = 'onelane' ORDER BY random() {limit}) _"
        )
    yield
