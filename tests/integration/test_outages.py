"""Redis or Postgres goes away under load, and comes back, perhaps empty: the worker lives through it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.deliveries import Accepted, Delivery
from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis
from onelane.errors import StoreUnavailable
from onelane.postgres.migrations import shipped_code
from tests.conftest import Accept, eventually, stand
from tests.lane_state import due_ms, is_leased, now_ms
from tests.processes import worker_process
from tests.rows import Rows

USERS = 20


@contextmanager
def _traffic(services: Services) -> Iterator[list[Accepted]]:
    """Accept messages of several users, in turn, until the block ends; yields what was accepted so far."""
    stop, accepted = threading.Event(), []

    def send() -> None:
        nr = 0
        while not stop.wait(0.002):
            delivery = Delivery(senders=(f"user {nr % USERS}",), external_id=str(nr), text=str(nr))
            stands = stand(services, [delivery])
            accepted.extend(stands)
            nr += len(stands)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield accepted
    finally:
        stop.set()
        thread.join(30)


def _answered(rows: Rows) -> int:
    try:
        return rows.answered()
    except StoreUnavailable:
        return 0


def _check_all_answered_in_order(rows: Rows, accepted: list[Accepted]) -> None:
    eventually(lambda: rows.waiting() == 0)
    assert rows.answered() == len({message.message_id for message in accepted})
    for nr in range(USERS):
        mine = [int(text) for text in rows.texts(rows.user_of("demo", f"user {nr}"))]
        assert mine == sorted(mine)
    assert rows.sessions_made() == USERS


def _flush(services: Services, redis_server: EmbeddedRedis) -> None:
    services.lanes.client.flushall()


def _kill_and_forget(services: Services, redis_server: EmbeddedRedis) -> None:
    """Kill Redis and let it come back empty."""
    redis_server.kill()
    for path in sorted(redis_server.data_dir.rglob("*"), reverse=True):
        if path.is_file():
            path.unlink()
    redis_server.start()


@pytest.mark.parametrize(
    "lose",
    [pytest.param(_flush, id="FLUSHALL"), pytest.param(_kill_and_forget, id="killed", marks=pytest.mark.slow)],
)
def test_a_redis_that_forgets_everything_costs_seconds_and_no_message(
    rows: Rows,
    lose: Callable[[Services, EmbeddedRedis], None],
    services: Services,
    settings: Settings,
    redis_server: EmbeddedRedis,
) -> None:
    with worker_process(settings) as process:
        with _traffic(services) as accepted:
            eventually(lambda: _answered(rows) > 100)
            lose(services, redis_server)
            seen = _answered(rows)
            eventually(lambda: _answered(rows) > seen + 100)
        _check_all_answered_in_order(rows, accepted)
        assert process.is_running
        client = services.lanes.client
        eventually(lambda: client.scard("rq:workers") == 1)  # it registered again


@pytest.mark.slow
def test_redis_away_for_a_while_is_waited_for(
    rows: Rows, services: Services, settings: Settings, redis_server: EmbeddedRedis
) -> None:
    with worker_process(settings) as process:
        with _traffic(services) as accepted:
            eventually(lambda: _answered(rows) > 100)
            redis_server.stop()
            before = len(accepted)
            eventually(lambda: len(accepted) > before + 20)  # intake goes on
            redis_server.start()
            seen = _answered(rows)
            eventually(lambda: _answered(rows) > seen + 100)
        _check_all_answered_in_order(rows, accepted)
        assert process.is_running


@pytest.mark.slow
def test_postgres_restarting_under_load_loses_nothing_and_counts_no_attempt(
    rows: Rows, services: Services, settings: Settings, postgres: EmbeddedPostgres
) -> None:
    with worker_process(settings) as process:
        with _traffic(services) as accepted:
            eventually(lambda: _answered(rows) > 100)
            postgres.kill()
            postgres.start()
            seen = eventually(lambda: _answered(rows))
            eventually(lambda: _answered(rows) > seen + 100)
        _check_all_answered_in_order(rows, accepted)
        assert process.is_running
    assert rows.attempts_max() == 0


@pytest.mark.slow
def test_a_database_that_refuses_turns_blames_no_message(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    message = accept("alice", "hello")
    services.database.rows("ALTER FUNCTION settle_turn RENAME TO settle_turn_away")
    try:
        with worker_process(settings.model_copy(update={"lock_ttl_s": 1, "commit_hold_s": 1})):
            user_id = message.user_id
            eventually(lambda: not is_leased(services, user_id) and due_ms(services, user_id) > now_ms(services))
            services.database.rows("ALTER FUNCTION settle_turn_away RENAME TO settle_turn")
            eventually(lambda: _answered(rows) == 1)
    finally:
        if rows.ask("SELECT to_regproc('settle_turn') IS NULL AS is_away").is_away:
            services.database.rows("ALTER FUNCTION settle_turn_away RENAME TO settle_turn")
    row = rows.message(message.message_id)
    assert (row.attempts, row.deaths) == (0, 0)


@pytest.mark.slow
def test_a_turn_stands_when_the_next_cannot_begin(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    for nr in range(3):
        accept("alice", f"m{nr}")
    begin = shipped_code()["functions/begin_turn"]
    broken = begin.replace("    LOOP\n", "    IF v_hint IS NOT NULL THEN RAISE 'away'; END IF;\n    LOOP\n", 1)
    assert broken != begin
    services.database.rows(broken)
    try:
        with worker_process(settings.model_copy(update={"lock_ttl_s": 1})):
            # The first begins without a hint. Its commit would begin the second with one, and is done without.
            eventually(lambda: _answered(rows) == 1)
            services.database.rows(begin)
            eventually(lambda: _answered(rows) == 3)
    finally:
        services.database.rows(begin)
    assert rows.attempts_max() == 0
