"""Redis or Postgres goes away under load, and comes back, perhaps empty: the worker lives through it."""

import threading
from contextlib import contextmanager

import pytest

from onelane.errors import StoreUnavailable
from onelane.migrations import shipped_code
from onelane.model import user_id_of
from tests.conftest import eventually
from tests.processes import the_child, worker_process

USERS = 20


@contextmanager
def _traffic(accept):
    """Accept messages of several users, in turn, until the block ends; yields what was accepted so far."""
    stop, accepted = threading.Event(), []

    def send():
        nr = 0
        while not stop.wait(0.002):
            try:
                accepted.append(accept(f"user {nr % USERS}", str(nr)))
                nr += 1
            except StoreUnavailable:
                continue

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield accepted
    finally:
        stop.set()
        thread.join(30)


def _answered(services):
    try:
        return services.database.row("SELECT count(*) AS n FROM messages WHERE direction = 'out'").n
    except StoreUnavailable:
        return 0


def _check_all_answered_in_order(services, accepted):
    eventually(lambda: services.database.row("SELECT sum(waiting) AS n FROM users").n == 0, within_s=40)
    rows = services.database.rows(
        "SELECT user_id, text, turn_seq FROM messages WHERE direction = 'out' ORDER BY user_id, turn_seq"
    )
    assert len(rows) == len({message.message_id for message in accepted})
    for nr in range(USERS):
        mine = [int(row.text) for row in rows if row.user_id == user_id_of("demo", f"user {nr}")]
        assert mine == sorted(mine)
    assert services.database.row("SELECT count(*) AS n FROM conversation_sessions").n == USERS


def _flush(services, redis_server):
    services.lanes.client.flushall()


def _kill_and_forget(services, redis_server):
    """Kill Redis and let it come back empty."""
    redis_server.kill()
    for path in sorted(redis_server.data_dir.rglob("*"), reverse=True):
        if path.is_file():
            path.unlink()
    redis_server.start()


@pytest.mark.parametrize("lose", [_flush, _kill_and_forget], ids=["FLUSHALL", "killed, back empty"])
def test_a_redis_that_forgets_everything_costs_seconds_and_no_message(lose, services, settings, accept, redis_server):
    with worker_process(settings) as process:
        child = the_child(process)
        with _traffic(accept) as accepted:
            eventually(lambda: _answered(services) > 100)
            lose(services, redis_server)
            seen = _answered(services)
            eventually(lambda: _answered(services) > seen + 100, within_s=40)
        _check_all_answered_in_order(services, accepted)
        assert the_child(process) == child
        client = services.lanes.client
        eventually(lambda: client.scard("rq:workers") == 1)  # it registered again


def test_redis_away_for_a_while_is_waited_for(services, settings, accept, redis_server):
    with worker_process(settings) as process:
        child = the_child(process)
        with _traffic(accept) as accepted:
            eventually(lambda: _answered(services) > 100)
            redis_server.stop()
            before = len(accepted)
            eventually(lambda: len(accepted) > before + 20)  # intake goes on
            redis_server.start()
            seen = _answered(services)
            eventually(lambda: _answered(services) > seen + 100, within_s=40)
        _check_all_answered_in_order(services, accepted)
        assert the_child(process) == child


def test_postgres_restarting_under_load_loses_nothing_and_counts_no_attempt(services, settings, accept, postgres):
    with worker_process(settings) as process:
        child = the_child(process)
        with _traffic(accept) as accepted:
            eventually(lambda: _answered(services) > 100)
            postgres.kill()
            postgres.start()
            seen = eventually(lambda: _answered(services), within_s=30)
            eventually(lambda: _answered(services) > seen + 100, within_s=40)
        _check_all_answered_in_order(services, accepted)
        assert the_child(process) == child
    assert services.database.row("SELECT max(attempts) AS n FROM messages").n == 0


def test_a_database_that_refuses_turns_blames_no_message(services, settings, accept):
    message = accept("alice", "hello")
    services.database.rows("ALTER FUNCTION commit_turn RENAME TO commit_turn_away")
    try:
        with worker_process(settings.model_copy(update={"lock_ttl_s": 1})):
            client = services.lanes.client
            lock, lane = f"lock:user:{message.user_id}", str(message.user_id)
            eventually(lambda: not client.exists(lock) and client.zscore("lanes", lane) > _now_ms(client))
            services.database.rows("ALTER FUNCTION commit_turn_away RENAME TO commit_turn")
            eventually(lambda: _answered(services) == 1)
    finally:
        if services.database.row("SELECT to_regproc('commit_turn') IS NULL AS is_away").is_away:
            services.database.rows("ALTER FUNCTION commit_turn_away RENAME TO commit_turn")
    row = services.database.row("SELECT attempts, deaths FROM messages WHERE id = %s", (message.message_id,))
    assert (row.attempts, row.deaths) == (0, 0)


def test_a_turn_stands_when_the_next_cannot_begin(services, settings, accept):
    for nr in range(3):
        accept("alice", f"m{nr}")
    begin = shipped_code()["functions/begin_turn"]
    broken = begin.replace("    LOOP\n", "    IF p_session_hint IS NOT NULL THEN RAISE 'away'; END IF;\n    LOOP\n", 1)
    assert broken != begin
    services.database.rows(broken)
    try:
        with worker_process(settings.model_copy(update={"lock_ttl_s": 1})):
            # The first begins without a hint. Its commit would begin the second with one, and is done without.
            eventually(lambda: _answered(services) == 1)
            services.database.rows(begin)
            eventually(lambda: _answered(services) == 3)
    finally:
        services.database.rows(begin)
    assert services.database.row("SELECT max(attempts) AS n FROM messages").n == 0


def _now_ms(client):
    seconds, micros = client.time()
    return seconds * 1000 + micros / 1000
