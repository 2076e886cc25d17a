"""No user waits for another: floods, hangs and limits delay only themselves."""

import statistics
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any
from uuid import UUID

import pytest

import onelane
from onelane.bootstrap import Services, open_services
from onelane.bot import Turn
from onelane.config import Settings
from tests.conftest import NIGHTLY, Accept, accept_all, eventually
from tests.lane_state import due_ms, now_ms
from tests.processes import worker_process
from tests.rows import Rows
from tests.working_off import work_off

QUIET_USERS = 30


def _with_channel(settings: Settings, **limits: Any) -> Settings:
    channel = settings.channels["demo"].model_copy(update=limits)
    return settings.model_copy(update={"channels": {"demo": channel}})


def _are_answered(rows: Rows, users: list[UUID]) -> bool:
    return len(rows.waits_ms(users)) == len(users)


def _talk(rows: Rows, accept: Accept, prefix: str) -> list[float]:
    """Let quiet users write one after the other, each after the last was answered; return their waits in ms."""
    users: list[UUID] = []
    for nr in range(QUIET_USERS):
        users.append(accept(f"{prefix} {nr}").user_id)
        eventually(partial(_are_answered, rows, list(users)))
    return rows.waits_ms(users)


@pytest.mark.parametrize("flood", [1_000, pytest.param(10_000, marks=NIGHTLY)])
def test_a_user_with_thousands_of_waiting_messages_holds_one_slot_and_delays_nobody_much(
    rows: Rows, settings: Settings, accept: Accept, flood: int
) -> None:
    settings = _with_channel(settings, backlog_max=100_000)
    with worker_process(settings), closing(open_services(settings)) as flooded:
        alone = _talk(rows, accept, "before")
        accept_all(flooded, [("flood", "sleep 0.1") for _ in range(flood)])
        beside = _talk(rows, accept, "beside")
        assert not rows.is_settled(rows.user_of("demo", "flood")), "the flood was over too early"
    # The promise is twice the p99 on a quiet machine, which the benchmark measures; waiting behind the flood would be
    # seconds. Here: no more than a few turns' time.
    assert statistics.median(beside) < 20 * statistics.median(alone) + 100


@pytest.mark.slow
def test_sixteen_hanging_users_of_one_worker_do_not_stop_the_seventeenth_on_another(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    with worker_process(settings, "--slots=16"):
        hanging = [accept(f"hang {nr}", "sleep 600") for nr in range(16)]
        client = services.lanes.client
        eventually(lambda: all(client.exists(f"lock:in:{message.user_id}") for message in hanging))
        with worker_process(settings, "--slots=16"):
            accept("seventeenth")
            eventually(lambda: rows.waits_ms([rows.user_of("demo", "seventeenth")]))
        assert all(client.exists(f"lock:in:{message.user_id}") for message in hanging)


@pytest.mark.slow
def test_a_rate_limit_parks_the_lane_and_drops_nothing(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    settings = _with_channel(settings, rate_per_minute=3)
    messages = [accept("keen", f"text {nr}") for nr in range(5)]
    user_id = messages[0].user_id
    client = services.lanes.client
    with worker_process(settings):
        accept("other")
        eventually(lambda: rows.waits_ms([rows.user_of("demo", "other")]))
        eventually(lambda: len(rows.waits_ms([rows.user_of("demo", "keen")])) == 3)
        eventually(lambda: not client.exists(f"lock:in:{user_id}"))
        assert 10_000 < due_ms(services, user_id) - now_ms(services) <= 20_000
    assert client.llen(f"rq:queue:user:{user_id}") == 2


def refuse(turn: Turn) -> str:
    raise ValueError


def find_nobody(turn: Turn) -> str:
    raise ConnectionRefusedError


def hurry_too_much(turn: Turn) -> str:
    raise onelane.Later(0, "")


@pytest.mark.parametrize(
    ("handler", "attempts_max"), [(refuse, 1), (refuse, 10), (find_nobody, 1), (hurry_too_much, 1)]
)
def test_every_run_of_a_handler_counts_against_the_rate_limit_whatever_comes_of_it(
    services: Services, settings: Settings, accept: Accept, handler: Callable[[Turn], Any], attempts_max: int
) -> None:
    settings = _with_channel(settings, rate_per_minute=3).model_copy(update={"attempts_max": attempts_max})
    [user_id] = {accept("keen", f"text {nr}").user_id for nr in range(5)}
    runs = []

    def handle(turn: Turn) -> Any:
        runs.append(turn)
        return handler(turn)

    work_off(services, settings, handle, patience_s=5)
    assert len(runs) == 3
    assert 10_000 < due_ms(services, user_id) - now_ms(services) <= 20_000


def test_a_run_that_killed_its_worker_counts_against_the_rate_limit_too(
    services: Services, settings: Settings, accept: Accept
) -> None:
    settings = _with_channel(settings, rate_per_minute=3)
    [user_id] = {accept("keen", f"text {nr}").user_id for nr in range(5)}
    assert services.lanes.lease("doomed", 0, 1, 0.05).leases
    eventually(lambda: due_ms(services, user_id) < now_ms(services))
    runs: list[Turn] = []
    work_off(services, settings, runs.append, patience_s=5)
    assert len(runs) == 2
