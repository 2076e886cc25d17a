"""Somebody else's service is away: its messages wait for it, and lose no attempt; the operator sees it."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import onelane
from onelane.bootstrap import Services
from onelane.bot import Turn
from onelane.config import Settings
from tests.calls import Calls, failure, lease
from tests.conftest import Accept, LogLines, eventually
from tests.lane_state import due_ms, now_ms
from tests.processes import worker_process
from tests.rows import Rows
from tests.working_off import work_off

REASON = "the model is away"
OUTAGE_S = 45
SPEED = 100
WAITS = ("retry_base_s", "retry_max_s", "later_max_s")


class Provider:
    """A handler whose provider is away for the first `outages` runs."""

    def __init__(self, outages: int, fail: Callable[[], Any]) -> None:
        self.outages = outages
        self._fail = fail
        self.runs = 0

    def __call__(self, turn: Turn) -> Any:
        """Ask the provider."""
        self.runs += 1
        return self._fail() if self.runs <= self.outages else f"answer {self.runs}"


def refuse_connection() -> None:
    raise ConnectionRefusedError


def wrap_a_cut() -> None:
    try:
        raise ConnectionResetError
    except OSError as error:
        raise RuntimeError("no answer") from error


async def time_out() -> None:
    async with asyncio.timeout(0):
        await asyncio.sleep(60)


async def ask_twice_at_once() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(time_out())
        tasks.create_task(time_out())


def ask_for_time() -> None:
    raise onelane.Later(0, REASON)


def _later(settings: Settings, **more: Any) -> Settings:
    return settings.model_copy(update={"attempts_max": 1, "handler": "tests.bots:handle", **more})


@pytest.mark.parametrize("fail", [refuse_connection, wrap_a_cut, time_out, ask_twice_at_once, ask_for_time])
def test_a_message_whose_provider_is_away_loses_no_attempt_and_is_answered_in_its_order(
    rows: Rows, services: Services, settings: Settings, accept: Accept, fail: Callable[[], Any]
) -> None:
    user_id = accept("eve", "first").user_id
    accept("eve", "second")
    provider = Provider(1 if fail is ask_for_time else 4, fail)
    work_off(services, _later(settings), provider)
    assert rows.states(user_id) == ["processed", "processed"]
    assert rows.texts(user_id) == [f"answer {provider.outages + 1}", f"answer {provider.outages + 2}"]
    assert rows.attempts_max() == 0


@pytest.mark.parametrize("error", [ConnectionRefusedError, RuntimeError])
def test_a_provider_that_is_away_for_45_seconds_kills_none_of_ten_questions_with_the_defaults_at_100_times_the_speed(
    rows: Rows, services: Services, settings: Settings, accept: Accept, error: type[Exception]
) -> None:
    fields = Settings.model_fields
    fast = {name: fields[name].default / SPEED for name in WAITS}
    users = [accept(f"user {nr}", "why?").user_id for nr in range(10)]
    back_at = time.monotonic() + OUTAGE_S / SPEED

    def handle(turn: Turn) -> str:
        if time.monotonic() < back_at:
            raise error
        return "because"

    work_off(services, settings.model_copy(update={"attempts_max": fields["attempts_max"].default, **fast}), handle)
    assert [rows.texts(user) for user in users] == [["because"]] * 10


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_provider_that_is_away_for_45_seconds_kills_none_of_ten_questions_of_a_worker_with_the_defaults(
    rows: Rows, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    defaults = {name: Settings.model_fields[name].default for name in (*WAITS, "attempts_max")}
    gate = tmp_path / "gate"
    texts = [f"{deed} {gate}" for deed in ("need", "miss")] * 5
    with worker_process(settings.model_copy(update=defaults)):
        back_at = time.monotonic() + OUTAGE_S
        users = [accept(f"user {nr}", text).user_id for nr, text in enumerate(texts)]
        eventually(lambda: time.monotonic() > back_at)
        assert {state for user in users for state in rows.states(user)} == {"received"}
        gate.touch()
        eventually(lambda: [rows.texts(user) for user in users] == [[text] for text in texts], within_s=240)
    assert [rows.inbound(user)[0].attempts > 0 for user in users] == [False, True] * 5


def test_what_its_author_did_wrong_is_an_attempt(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    user_id = accept("eve").user_id
    provider = Provider(1, lambda: open("no such file"))  # noqa: PTH123, SIM115 - it fails
    work_off(services, _later(settings), provider)
    assert rows.states(user_id) == ["dead"]


def test_a_message_that_has_waited_for_as_long_as_it_may_has_its_attempts_then(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    user_id = accept("eve").user_id
    provider = Provider(1_000, refuse_connection)
    work_off(services, _later(settings, later_max_s=3, retry_max_s=0.02, attempts_max=2), provider)
    assert rows.states(user_id) == ["dead"]
    assert rows.attempts_max() == 2
    assert provider.runs > 3


def test_without_time_to_wait_every_failure_is_an_attempt(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    user_id = accept("eve").user_id
    work_off(services, _later(settings, later_max_s=0), Provider(1, refuse_connection))
    assert rows.states(user_id) == ["dead"]


@pytest.mark.parametrize(("asked_s", "least_ms", "most_ms"), [(30, 20_000, 30_000), (10**9, 80_000, 100_000)])
def test_the_lane_waits_as_long_as_the_handler_asks_but_not_beyond_the_messages_time(
    services: Services, settings: Settings, accept: Accept, asked_s: int, least_ms: int, most_ms: int
) -> None:
    def handle(turn: Turn) -> str:
        raise onelane.Later(asked_s, REASON)

    user_id = accept("eve").user_id
    work_off(services, _later(settings, later_max_s=100), handle, patience_s=5)
    assert least_ms < due_ms(services, user_id) - now_ms(services) <= most_ms


@pytest.mark.slow
@pytest.mark.parametrize("deed", ["later 0", "unreachable"])
def test_it_is_the_same_in_a_process_of_its_own(
    rows: Rows, services: Services, settings: Settings, accept: Accept, deed: str
) -> None:
    message = accept("eve", deed)
    rows.note_deaths(message.message_id, 2)
    work_off(services, _later(settings))
    assert rows.texts(message.user_id) == ["laters 1"]
    assert rows.attempts_max() == 0


def test_the_reason_is_kept_in_postgres_alone(
    rows: Rows, services: Services, settings: Settings, accept: Accept, log_lines: LogLines
) -> None:
    message = accept("eve")
    work_off(services, _later(settings, later_max_s=100), Provider(1, lambda: later(50)), patience_s=5)
    assert rows.message(message.message_id).last_error.endswith(f"Later: {REASON}")
    [line] = [line for line in log_lines if line["event"] == "turn_postponed"]
    assert line["laters"] == 1
    assert "Later" in line["failure"]
    assert REASON not in str(log_lines)


def later(seconds: float) -> None:
    raise onelane.Later(seconds, REASON)


@pytest.mark.parametrize("wrong", [(-1, ""), (float("nan"), ""), (float("inf"), ""), ("soon", ""), (1, b"bytes")])
def test_a_later_that_makes_no_sense_is_its_authors_mistake(
    rows: Rows, services: Services, settings: Settings, accept: Accept, wrong: Any
) -> None:
    def handle(turn: Turn) -> str:
        raise onelane.Later(*wrong)

    user_id = accept("eve").user_id
    work_off(services, _later(settings), handle)
    assert rows.states(user_id) == ["dead"]


@pytest.mark.parametrize("reason", ["a\0b", "\ud800", "x" * 100_000])
def test_any_reason_can_be_stored(services: Services, settings: Settings, accept: Accept, reason: str) -> None:
    def handle(turn: Turn) -> str:
        raise onelane.Later(50, reason)

    user_id = accept("eve").user_id
    work_off(services, _later(settings), handle, patience_s=5)
    assert due_ms(services, user_id) > now_ms(services) + 20_000


def test_a_postponement_repeated_word_for_word_is_counted_once_whatever_the_time(
    services: Services, accept: Accept
) -> None:
    calls = Calls(services.database)
    message = accept("eve")
    [begun] = calls.begin(lease(message.user_id))
    item = failure(begun, attempts_max=1, later={"laters": 0, "max_s": 60, "reason": REASON})
    [first], [again] = calls.settle(item), calls.settle(item)
    services.database.rows("UPDATE inbox SET later_since = later_since - interval '1 hour'")
    [afterwards] = calls.settle(item)
    assert [one["outcome"] for one in (first, again, afterwards)] == ["later"] * 3
    assert [one["later"]["laters"] for one in (first, again, afterwards)] == [1] * 3
    assert 0 < again["later"]["left_s"] <= first["later"]["left_s"] <= 60
    assert afterwards["later"]["left_s"] == 0
    [begun] = calls.begin(lease(message.user_id))
    item = failure(begun, attempts_max=2, later={"laters": 1, "max_s": 60, "reason": REASON})
    [first], [again] = calls.settle(item), calls.settle(item)
    assert [(one["outcome"], one["attempts"]) for one in (first, again)] == [("retry", 1)] * 2


def test_a_lease_that_a_later_one_followed_postpones_nothing(services: Services, accept: Accept) -> None:
    calls = Calls(services.database)
    message = accept("eve")
    [begun] = calls.begin(lease(message.user_id))
    later = {"laters": 0, "max_s": 60, "reason": REASON}
    calls.settle(failure(begun, 2, later=later))
    [answer] = calls.settle(failure(begun, 1, later=later))
    assert answer["outcome"] == "fenced"
