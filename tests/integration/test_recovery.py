"""What Redis forgot, missed or was told by strangers is put right from Postgres, within a round."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest

from onelane import keys
from onelane.bootstrap import Services, open_services
from onelane.config import Settings
from onelane.deliveries import Accepted, Delivery
from onelane.dev.embedded import EmbeddedRedis
from onelane.lanes.marks import FIRST_USER
from onelane.model import JsonObject
from onelane.postgres.connection import Row
from onelane.processes.duties import ROUND_S, Duties
from onelane.processes.reconciler import (
    LAP_EVERY_MAX_S,
    LAP_EVERY_S,
    QUICK_S,
    RECONCILE_MAX_S,
    USERS_PER_PAGE,
    USERS_PER_PAGE_MAX,
    WAITING_USERS,
    Page,
    Reconciler,
    next_lap_s,
    next_most,
)
from onelane.sessions import SWEEP_ENDS_MAX
from tests.conftest import Accept, LogLines, RunWorker, deliver, eventually
from tests.duties import PARKED_MAX_S, duties_of
from tests.lane_state import failed_jobs
from tests.proxy import Proxy
from tests.rows import Rows

REQUEUED_WITHIN_S = 5
LAP_S = LAP_EVERY_S + ROUND_S
USERS_MAX = 10_000
BUSY_S = 5
"""What a busy machine may add to a bound."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"handler": "tests.bots:handle", "attempts_max": 2})


@pytest.fixture
def duties(services: Services) -> Duties:
    return duties_of(services)


@pytest.fixture
def reconciler(services: Services) -> Reconciler:
    return Reconciler(services.database, services.lanes, "a test", PARKED_MAX_S)


class Slow(NamedTuple):
    """Reads that nobody waits, and takes its time."""

    now: list[float]
    took_s: float

    def rows(self, _query: str, _params: object) -> list[Row]:
        self.now[0] += self.took_s
        return []


class Pages:
    """Reads of users who wait, each of which takes its time."""

    def __init__(self, now: list[float], took_s: Iterable[float], users: list[Row]) -> None:
        self.now = now
        self.asked: list[int] = []
        self._took_s, self._users = iter(took_s), users

    def rows(self, _query: str, params: dict[str, Any]) -> list[Row]:
        self.asked.append(params["most"])
        self.now[0] += next(self._took_s)
        return [user for user in self._users if user.user_id > params["after"]][: params["most"]]


def _waiting(services: Services) -> list[Row]:
    everybody = {"after": FIRST_USER, "most": USERS_MAX}
    return services.database.rows(WAITING_USERS[keys.IN], everybody)


def _score(services: Services, user_id: UUID) -> float | None:
    return services.lanes.scores([user_id])[0]


# Redis forgets, or was away


@pytest.mark.slow
def test_what_was_accepted_while_redis_was_away_is_answered_within_a_lap(
    rows: Rows, services: Services, settings: Settings, run_worker: RunWorker, redis_server: EmbeddedRedis
) -> None:
    with Proxy(redis_server.url) as proxy, run_worker(settings):
        far = open_services(settings.model_copy(update={"redis_url": proxy.url}))
        with proxy.refusing():
            deliver(far, [Delivery(senders=("alice",), external_id="1", text="hello")])
            eventually(lambda: rows.waiting() == 0, within_s=LAP_S + BUSY_S)
        far.close()


def test_flushall_with_messages_waiting_costs_none_and_no_order(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    deep = [accept("deep", str(nr)) for nr in range(150)]
    for nr in range(20):
        accept(f"user {nr}")
        accept(f"user {nr}")
    services.lanes.client.flushall()
    with run_worker(settings):
        eventually(lambda: rows.waiting() == 0)
    assert rows.processed(deep[0].user_id) == list(range(1, 151))
    assert rows.answered() == 190


def test_a_lane_that_waits_longer_than_anything_we_set_is_due_after_a_lap(
    services: Services, accept: Accept, reconciler: Reconciler, log_lines: LogLines
) -> None:
    user_id = accept("alice").user_id
    services.lanes.client.zadd(keys.lanes(), {str(user_id): 9e15})
    reconciler.reconcile()
    assert [lease.user_id for lease in services.lanes.lease("w", 1, 1, 15).leases] == [user_id]
    assert "lanes_called_back" in [line["event"] for line in log_lines]


@pytest.mark.slow
def test_a_paused_user_stays_paused_over_flushall(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker, reconciler: Reconciler
) -> None:
    user_id = accept("alice").user_id
    rows.pause(user_id)
    services.lanes.client.flushall()
    assert reconciler.reconcile() == 1
    assert _score(services, user_id) == float("inf")
    services.lanes.client.flushall()
    with run_worker(settings):
        bob = accept("bob").user_id
        eventually(lambda: rows.states(bob) == ["processed"])
        eventually(lambda: _score(services, user_id) == float("inf"))
    assert rows.states(user_id) == ["received"]


@pytest.mark.slow
def test_a_user_resumed_in_postgres_alone_is_unpaused_within_a_lap(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    user_id = accept("alice").user_id
    rows.pause(user_id)
    services.lanes.pause(user_id)
    with run_worker(settings):
        rows.resume(user_id)
        eventually(lambda: rows.states(user_id) == ["processed"], within_s=LAP_S + BUSY_S)


@pytest.mark.slow
def test_lanes_without_work_are_dropped(services: Services, settings: Settings, run_worker: RunWorker) -> None:
    for _ in range(30):
        services.lanes.make_due(uuid4())
    services.lanes.client.zadd("lanes:in", {"nobody's lane": 0, "-" * 36: 0})
    with run_worker(settings):
        eventually(lambda: not services.lanes.client.exists("lanes:in"))
    assert not services.lanes.client.keys("lock:*")


@pytest.mark.parametrize("many", [3_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_thousands_of_waiting_users_are_put_back_in_bounded_rounds(
    rows: Rows, services: Services, reconciler: Reconciler, many: int
) -> None:
    rows.make_waiting_users(many)
    rounds, enqueued = 0, 0
    while enqueued < many:
        began = time.monotonic()
        enqueued += reconciler.reconcile()
        assert time.monotonic() - began < RECONCILE_MAX_S + BUSY_S, "a round without a bound"
        rounds += 1
        assert rounds < 60
    assert services.lanes.client.zcard("lanes:in") == many
    assert reconciler.reconcile() == 0


@pytest.mark.parametrize("kind", [keys.IN, keys.OUT])
def test_a_page_reads_no_more_users_than_it_has(rows: Rows, services: Services, kind: str) -> None:
    rows.make_waiting_users(3_000) if kind == keys.IN else rows.make_waiting_replies(3_000)
    page = {"after": FIRST_USER, "most": 100}
    plan = services.database.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {WAITING_USERS[kind]}", page)[0][0][0]["Plan"]
    assert list(read_of("users", plan)) == [100]


def read_of(table: str, plan: JsonObject) -> Iterator[int]:
    """Yield how many rows each step of a plan has read of a table."""
    if plan.get("Relation Name") == table:
        yield round(plan["Actual Rows"] * plan["Actual Loops"])
    for step in plan.get("Plans", []):
        yield from read_of(table, step)


def test_workers_put_users_back_together_and_no_two_take_the_same(
    rows: Rows, services: Services, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.make_waiting_users(2 * USERS_PER_PAGE + 1)
    other = Reconciler(services.database, services.lanes, "another", PARKED_MAX_S)
    added_by_other: list[int] = []
    work_off = reconciler._reconcile_page

    def meanwhile(users: list[Row]) -> Page:
        if not added_by_other:
            added_by_other.append(other.reconcile())
        return work_off(users)

    monkeypatch.setattr(reconciler, "_reconcile_page", meanwhile)
    assert reconciler.reconcile() == USERS_PER_PAGE
    assert added_by_other == [USERS_PER_PAGE + 1]


def test_pages_grow_while_they_are_read_quickly(
    rows: Rows, services: Services, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.make_waiting_users(7 * USERS_PER_PAGE)
    pages = Pages([1_000.0], (0.0, 0.0, 2 * QUICK_S, 0.0), _waiting(services))
    monkeypatch.setattr(time, "monotonic", lambda: pages.now[0])
    monkeypatch.setattr(reconciler, "_database", pages)
    assert reconciler.reconcile() == 7 * USERS_PER_PAGE
    assert pages.asked == [USERS_PER_PAGE, 2 * USERS_PER_PAGE, 4 * USERS_PER_PAGE, USERS_PER_PAGE]
    assert next_most(USERS_PER_PAGE_MAX, 0.0) == USERS_PER_PAGE_MAX


def test_a_worker_that_does_not_have_the_round_helps_to_put_users_back(
    rows: Rows, services: Services, duties: Duties
) -> None:
    services.lanes.marks.claim_duty("duties", "another", ROUND_S)
    rows.make_waiting_users(3)
    duties.round()
    assert services.lanes.client.zcard(keys.lanes()) == 3


def test_whoever_a_worker_died_with_is_put_back_in_the_next_lap(
    rows: Rows, services: Services, reconciler: Reconciler
) -> None:
    rows.make_waiting_users(USERS_PER_PAGE + 1)
    marks = services.lanes.marks
    first = [row.id for row in services.database.rows("SELECT id FROM users ORDER BY id")]
    assert marks.move_cursor(marks.cursor(), first[USERS_PER_PAGE - 1], "one that dies")
    assert reconciler.reconcile() == 1
    services.lanes.client.delete(keys.reconciled())
    assert reconciler.reconcile() == USERS_PER_PAGE


def test_a_cursor_whose_move_was_not_answered_moves_once(services: Services) -> None:
    marks, page, next_page = services.lanes.marks, UUID(int=7), UUID(int=9)
    for _ in range(2):
        assert marks.move_cursor(FIRST_USER, page, "a")
    assert not marks.move_cursor(FIRST_USER, page, "b")
    assert marks.move_cursor(page, next_page, "b")
    assert marks.cursor() == next_page


@pytest.mark.parametrize(("read_s", "next_s"), [(0.01, LAP_EVERY_S), (1.5, 30), (9, LAP_EVERY_MAX_S)])
def test_laps_take_postgres_a_bounded_part_of_the_time(read_s: float, next_s: int) -> None:
    assert next_lap_s(read_s) == next_s


def test_a_read_that_waited_out_an_outage_puts_off_no_lap(
    services: Services, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, client, stays_s = [1_000.0], services.lanes.client, []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for took_s in (1.5, 0.0, 1.5, 1.5):
        monkeypatch.setattr(reconciler, "_database", Slow(now, took_s))
        client.delete(keys.reconciled())
        reconciler.reconcile()
        stays_s.append(client.ttl(keys.reconciled()))
    assert max(stays_s[:3]) <= LAP_EVERY_S < stays_s[3]


def test_a_round_ends_more_sessions_than_one_transaction_does(rows: Rows, services: Services, duties: Duties) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=1)
    users = [rows.make_user("demo", str(nr)) for nr in range(2 * SWEEP_ENDS_MAX + 1)]
    for user_id in users:
        rows.make_session(user_id, started_at=long_ago)
    assert duties.sweep() == len(users)


# RQ's own tools


def _requeue_by_registry(services: Services, _settings: Settings, message: Accepted) -> None:
    failed_jobs(services, message.user_id).requeue(str(message.message_id))


def _requeue_by_command(_services: Services, settings: Settings, message: Accepted) -> None:
    rq = [str(Path(sys.executable).with_name("rq")), "requeue", "--url", settings.redis_url]
    lane = ["--queue", keys.queue_name(message.user_id), "--serializer", "rq.serializers.JSONSerializer"]
    subprocess.run([*rq, *lane, str(message.message_id)], check=True, capture_output=True, timeout=30)


@pytest.mark.parametrize("requeue", [_requeue_by_registry, pytest.param(_requeue_by_command, marks=pytest.mark.slow)])
def test_a_dead_message_requeued_with_rqs_tools_is_answered_within_five_seconds(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    run_worker: RunWorker,
    requeue: Callable[[Services, Settings, Accepted], None],
) -> None:
    with run_worker(settings):
        message = accept("alice", "raise")
        eventually(lambda: rows.states(message.user_id) == ["dead"])
        eventually(lambda: str(message.message_id) in failed_jobs(services, message.user_id))
        rows.rewrite(message.message_id, "well again")
        requeue(services, settings, message)
        eventually(lambda: rows.states(message.user_id) == ["processed"], within_s=REQUEUED_WITHIN_S + BUSY_S)
        eventually(lambda: not services.lanes.client.exists("rq:queues", "lanes:in"))


@pytest.mark.slow
def test_a_requeued_message_runs_next_in_its_users_order(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with run_worker(settings):
        dead = accept("alice", "raise")
        accept("alice", f"wait {gate}")
        accept("alice", "three")
        eventually(lambda: rows.states(dead.user_id)[0] == "dead")
        eventually(lambda: str(dead.message_id) in failed_jobs(services, dead.user_id))
        rows.rewrite(dead.message_id, "well again")
        _requeue_by_registry(services, settings, dead)
        eventually(lambda: rows.states(dead.user_id)[0] == "received")
        gate.touch()
        eventually(lambda: rows.waiting() == 0)
    assert rows.processed(dead.user_id) == [2, 1, 3]


@pytest.mark.slow
def test_a_requeued_poison_message_is_dead_again_once(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker, duties: Duties
) -> None:
    with run_worker(settings):
        message = accept("alice", "raise")
        eventually(lambda: str(message.message_id) in failed_jobs(services, message.user_id))
        _requeue_by_registry(services, settings, message)
        eventually(lambda: not services.lanes.client.exists(keys.queue(message.user_id)))
        eventually(lambda: str(message.message_id) in failed_jobs(services, message.user_id))
        eventually(lambda: not services.lanes.client.exists("lanes:in"))
        assert duties.redrive_requeued() == 0
    assert rows.states(message.user_id) == ["dead"]
    assert len(failed_jobs(services, message.user_id)) == 1
    assert rows.message(message.message_id).attempts == 2


def test_a_requeued_message_at_the_end_of_a_long_backlog_is_found(services: Services, accept: Accept) -> None:
    message = accept("alice")
    [lease] = services.lanes.lease("w", 0, 1, 60).leases
    services.lanes.bury(lease, message.message_id, "Traceback: …")
    services.lanes.client.rpush(keys.queue(message.user_id), *[str(uuid4()) for _ in range(3_000)])
    assert services.lanes.requeued([message.user_id]) == []
    failed_jobs(services, message.user_id).requeue(str(message.message_id))
    assert services.lanes.requeued([message.user_id]) == [(message.user_id, str(message.message_id))]


def test_a_requeue_that_redis_cut_short_is_finished_in_the_next_round(
    services: Services, accept: Accept, duties: Duties
) -> None:
    message = accept("alice")
    [lease] = services.lanes.lease("w", 0, 1, 60).leases
    services.lanes.bury(lease, message.message_id, "Traceback: …")
    services.lanes.finish(lease)
    failed_jobs(services, message.user_id).requeue(str(message.message_id))
    assert _score(services, message.user_id) is None
    assert duties.redrive_requeued() == 1  # Postgres had it waiting already
    assert _score(services, message.user_id) is not None
    assert services.lanes.jobs(message.user_id) == [str(message.message_id)]
