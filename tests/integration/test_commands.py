"""The operator's commands: they show what is, act on Postgres and Redis, and show no sender and no text."""

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result

from onelane import keys
from onelane.bootstrap import Services
from onelane.cli import onelane
from onelane.config import Settings
from onelane.deliveries import Accepted
from onelane.dev.embedded.redis import free_port
from onelane.operations.snapshot import LaneState, Survey
from tests.by_hand import ByHand
from tests.conftest import DEADLINE_S, Accept, RunWorker, eventually
from tests.lane_state import due_ms, failed_jobs
from tests.rows import Rows
from tests.working_off import work_off

Ask = Callable[..., Any]
Bury = Callable[[str, int], list[Accepted]]

SENDER = "+4930123456"
TEXT = "a very private text"


class Invoke(Protocol):
    """Runs a command that must end with `exit_code`."""

    def __call__(self, *arguments: object, exit_code: int = 0, redis_url: str | None = None) -> Result: ...


@pytest.fixture
def invoke(settings: Settings, _root_logger_as_it_was: None) -> Invoke:
    """Run a command; whatever it says, it names no sender and quotes no text."""

    def invoke(*arguments: object, exit_code: int = 0, redis_url: str | None = None) -> Result:
        environment = {"DATABASE_URL": settings.database_url, "REDIS_URL": redis_url or settings.redis_url}
        result = CliRunner().invoke(onelane, [str(one) for one in arguments], env=environment)
        assert result.exit_code == exit_code, (result.output, result.exception)
        assert SENDER not in result.output
        assert TEXT not in result.output
        return result

    return invoke


@pytest.fixture
def ask(invoke: Invoke) -> Ask:
    return lambda *arguments, **options: json.loads(invoke(*arguments, "--json", **options).stdout)


@pytest.fixture
def nowhere() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


@pytest.fixture
def bury(services: Services, accept: Accept) -> Bury:
    """Let messages of one sender die, as a worker does when their attempts are used up."""

    def bury(sender: str, count: int) -> list[Accepted]:
        messages = [accept(sender, TEXT) for _ in range(count)]
        for call, message in enumerate(messages):
            lease = services.lanes.lease(f"gravedigger {sender}", call, 1, 60).leases[0]
            by_hand = ByHand(services.database, user_id=lease.user_id)
            begun = by_hand.begin(fence=lease.fence)
            assert begun.message_id == message.message_id
            failure = "Traceback (most recent call last):\n  somewhere\nValueError"
            by_hand.fail(begun, fence=lease.fence, error=failure)
            services.lanes.bury(lease, begun.message_id, failure)
            services.lanes.finish(lease, [], has_more=call + 1 < count)
        return messages

    return bury


# naming a user


@pytest.mark.usefixtures("services")
def test_a_user_is_an_id_or_channel_and_name_and_anything_else_is_refused_with_advice(
    accept: Accept, invoke: Invoke
) -> None:
    user_id = accept(SENDER, TEXT).user_id
    for name in (user_id, f"demo:{SENDER}"):
        assert str(user_id) in invoke("lane", name).output
    result = invoke("lane", "demo", exit_code=2)
    assert "must be a user's id (a UUID) or channel:name" in result.output
    invoke("lane", SENDER, exit_code=2)
    for command in (("lane", "pause"), ("lane", "redrive"), ("session", "show"), ("session", "end")):
        assert "there is no such user" in invoke(*command, f"other:{SENDER}", exit_code=1).output
    assert "there is no such user" in invoke("dead", "list", "--user", uuid4(), exit_code=1).output


BY_NAME = (
    ("lane", "show"),
    ("lane", "pause"),
    ("lane", "resume"),
    ("dead", "list", "--user"),
    ("dead", "retry", "--user"),
    ("lane", "redrive"),
    ("session", "show"),
    ("session", "escalate"),
    ("session", "hand-back"),
    ("session", "end"),
)


def test_every_command_takes_a_users_name_and_prints_the_id_in_its_place(bury: Bury, invoke: Invoke, ask: Ask) -> None:
    user_id = str(bury(SENDER, 1)[0].user_id)
    for command in BY_NAME:
        assert user_id in json.dumps(ask(*command, f"demo:{SENDER}")), command
    for command in BY_NAME[: BY_NAME.index(("session", "escalate"))]:
        invoke(*command, f"demo:{SENDER}")


# lanes


def test_lanes_are_counted_by_state_and_shown(services: Services, accept: Accept, invoke: Invoke, ask: Ask) -> None:
    due, parked, paused, leased, collecting = (accept(name, TEXT).user_id for name in ("a", "b", "c", "d", "e"))
    in_order = (leased, parked, collecting, paused, due)
    services.lanes.client.zadd("lanes:in", {str(user): nr for nr, user in enumerate(in_order)})
    first, second, third = services.lanes.lease("worker one", 1, 3, 60).leases
    assert (first.user_id, second.user_id, third.user_id) == in_order[:3]
    services.lanes.park(second, 90)
    services.lanes.park(third, 90)
    services.lanes.client.set(keys.collect(collecting), f"0 {due_ms(services, collecting):.0f}")
    services.lanes.client.set(keys.collect(parked), "0 1")  # its wait has ended
    services.lanes.pause(paused)
    answer = ask("lanes")
    assert {name: answer[name] for name in ("total", "due", "leased", "collecting", "parked", "paused")} == {
        "total": 5,
        "due": 1,
        "leased": 1,
        "collecting": 1,
        "parked": 1,
        "paused": 1,
    }
    assert answer["backlog"] == {"waiting": 5, "dead": 0}
    assert [(one["user_id"], one["state"]) for one in answer["lanes"]] == [
        (str(due), "due"),
        (str(leased), "leased"),
        (str(collecting), "collecting"),
        (str(parked), "parked"),
        (str(paused), "paused"),
    ]
    assert answer["lanes"][1]["worker"] == "worker one"
    assert answer["lanes"][1]["fence"] == first.fence
    assert 55 < answer["lanes"][1]["lease_ends_in_s"] <= 60
    assert 85 < answer["lanes"][2]["due_in_s"] <= 90
    output = invoke("lanes").output
    for words in ("due for", "lease for", "another", "until resumed", "5 waiting, 0 dead"):
        assert words in output


def test_a_crashed_workers_lane_is_due(services: Services, accept: Accept, ask: Ask) -> None:
    accept("a", TEXT)
    services.lanes.lease("worker one", 1, 1, 0.01)
    eventually(lambda: ask("lanes")["due"] == 1)


@pytest.mark.usefixtures("services")
def test_without_lanes_there_are_totals_only(invoke: Invoke) -> None:
    assert invoke("lanes").output.splitlines()[0].split() == ["lanes", "0"]


@pytest.mark.slow
def test_workers_are_counted_with_what_they_hold(
    services: Services, settings: Settings, accept: Accept, ask: Ask, run_worker: RunWorker, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with run_worker(settings.model_copy(update={"handler": "tests.bots:handle"})):
        accept("a", f"wait {gate}")
        snapshot = eventually(
            lambda: (found := Survey(services.lanes).snapshot()).workers and found.workers[0].lanes and found
        )
        assert snapshot.leased == snapshot.workers_alive == 1
        assert ask("lanes")["workers"][0]["is_alive"]
        gate.touch()


def test_a_hundred_thousand_lanes_are_counted_in_bounded_time(
    services: Services, accept: Accept, invoke: Invoke
) -> None:
    accept("a", TEXT)
    now_ms = int(time.time() * 1000)
    for start in range(0, 100_000, 10_000):
        scores = {str(UUID(int=start + nr)): now_ms + (60_000 if nr % 2 else -60_000) for nr in range(10_000)}
        services.lanes.client.zadd("lanes:in", scores)
    began = time.monotonic()
    output = invoke("lanes").output
    assert time.monotonic() - began < DEADLINE_S  # a second or two where nothing else runs
    assert "… and 99961 more" in output
    [oldest_s] = re.findall(r"50001, the oldest for (\d+\.\d) s", output)
    assert 60 <= float(oldest_s) < 60 + 2 * DEADLINE_S
    assert "parked      50000 at most" in output


def test_foreign_things_in_the_set_of_lanes_do_not_stop_the_view(services: Services, ask: Ask) -> None:
    services.lanes.client.zadd("lanes:in", {b"\xff not ours": 1, b"neither": float("inf")})
    assert {one["state"] for one in ask("lanes")["lanes"]} == {"due", "paused"}


# one lane


def test_a_lane_is_shown_with_jobs_holder_session_and_waiting_messages(
    services: Services, accept: Accept, invoke: Invoke, ask: Ask
) -> None:
    message = accept(SENDER, TEXT)
    accept(SENDER, TEXT)
    lease = services.lanes.lease("worker one", 1, 1, 60).leases[0]
    by_hand = ByHand(services.database, user_id=lease.user_id)
    begun = by_hand.begin(fence=lease.fence)
    by_hand.fail(begun, fence=lease.fence, attempts_max=5, error="Traceback:\n  x\nOSError")
    answer = ask("lane", message.user_id)
    assert answer["lane"]["state"] == LaneState.LEASED
    assert (answer["lane"]["jobs"], answer["lane"]["worker"]) == (2, "worker one")
    assert answer["lane"]["fence"] == answer["user"]["fence"] == lease.fence
    assert answer["session"]["id"] == str(begun.session_id)
    assert [(one["seq"], one["attempts"]) for one in answer["waiting"]] == [(1, 1), (2, 0)]
    output = invoke("lane", "show", message.user_id).output
    assert "held by worker one" in output
    assert "OSError" in output
    assert "Traceback" not in output


def test_with_redis_away_a_lane_is_shown_as_far_as_postgres_knows(accept: Accept, invoke: Invoke, nowhere: str) -> None:
    user_id = accept(SENDER, TEXT).user_id
    output = invoke("lane", user_id, redis_url=nowhere).output
    assert "unknown: Redis did not answer" in output
    assert "1 message\n" in output


def test_a_paused_user_waits_until_resumed(
    rows: Rows, services: Services, settings: Settings, accept: Accept, invoke: Invoke, ask: Ask
) -> None:
    user_id = accept(SENDER, TEXT).user_id
    invoke("lane", "pause", user_id)
    assert ask("lane", user_id)["lane"]["state"] == "paused"
    other = accept("other").user_id
    work_off(services, settings)
    assert (rows.processed(other), rows.processed(user_id)) == ([1], [])
    assert "since" in invoke("lane", user_id).output
    invoke("lane", "resume", user_id)
    work_off(services, settings)
    assert rows.processed(user_id) == [1]
    assert "was not paused" in invoke("lane", "resume", user_id).output


def test_resuming_a_user_without_work_makes_no_lane(
    rows: Rows, services: Services, settings: Settings, accept: Accept, invoke: Invoke
) -> None:
    user_id = accept(SENDER, TEXT).user_id
    work_off(services, settings)
    assert rows.processed(user_id) == [1]
    invoke("lane", "pause", user_id)
    invoke("lane", "resume", user_id)
    assert services.lanes.client.zcard("lanes:in") == 0


@pytest.mark.slow
def test_with_redis_away_pause_and_resume_are_done_in_postgres_and_the_output_says_so(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    invoke: Invoke,
    ask: Ask,
    nowhere: str,
    run_worker: RunWorker,
) -> None:
    user_id = accept(SENDER, TEXT).user_id
    assert "Redis is away: done in Postgres" in invoke("lane", "pause", user_id, redis_url=nowhere).output
    with run_worker(settings):
        eventually(lambda: ask("lane", user_id)["lane"]["state"] == "paused")
        assert ask("lane", "resume", user_id, redis_url=nowhere) == {
            "user_id": str(user_id),
            "resumed": True,
            "redis": False,
        }
        eventually(lambda: rows.processed(user_id) == [1])


# dead messages


def test_dead_messages_are_listed_in_order_and_by_user(bury: Bury, invoke: Invoke, ask: Ask) -> None:
    alice, bob = bury(SENDER, 2), bury("bob", 1)
    assert len(ask("dead", "list")["dead"]) == 3
    mine = ask("dead", "list", "--user", f"demo:{SENDER}")["dead"]
    assert [(one["message_id"], one["seq"]) for one in mine] == [(str(m.message_id), m.seq) for m in alice]
    assert ask("dead", "list", "--limit", 2)["more"]
    output = invoke("dead", "list", "--user", bob[0].user_id).output
    assert "ValueError" in output
    assert "Traceback" not in output
    assert ask("lanes")["backlog"] == {"waiting": 0, "dead": 3}


def test_a_retried_message_keeps_its_number_and_is_answered(
    rows: Rows, services: Services, settings: Settings, bury: Bury, invoke: Invoke
) -> None:
    message = bury(SENDER, 1)[0]
    died_in = rows.message(message.message_id).session_id
    assert failed_jobs(services, message.user_id).get_job_ids() == [str(message.message_id)]
    invoke("dead", "retry", message.message_id)
    assert failed_jobs(services, message.user_id).get_job_ids() == []
    work_off(services, settings)
    assert rows.processed(message.user_id) == [1]
    assert rows.message(message.message_id).session_id == died_in
    assert "is not dead" in invoke("dead", "retry", message.message_id, exit_code=1).output
    assert invoke("dead", "list").output == "no message is dead\n"


@pytest.mark.parametrize("command", [("lane", "redrive"), ("dead", "retry", "--user")])
def test_all_of_a_user_are_redriven_in_order_and_nobody_elses(
    rows: Rows,
    services: Services,
    settings: Settings,
    bury: Bury,
    ask: Ask,
    command: tuple[Any, ...],
) -> None:
    alice, bob = bury(SENDER, 3), bury("bob", 1)
    answer = ask(*command, alice[0].user_id)
    assert [1, 2, 3] in (answer.get("redriven"), answer["redriven"][0]["seqs"] if command[0] == "dead" else None)
    work_off(services, settings)
    assert rows.processed(alice[0].user_id) == [1, 2, 3]
    assert rows.message(bob[0].message_id).state == "dead"


def test_retry_all_takes_more_than_a_page(
    rows: Rows, services: Services, bury: Bury, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onelane.operations.acts.PAGE_MAX", 2)
    bury(SENDER, 3)
    bury("bob", 2)
    assert "5 dead messages redriven" in invoke("dead", "retry", "--all").output
    assert rows.count("received") == 5


@pytest.mark.usefixtures("services")
def test_retry_wants_exactly_one_way_to_name_messages(invoke: Invoke) -> None:
    for arguments in ((), (str(uuid4()), "--all"), ("--all", "--user", str(uuid4()))):
        assert "give a MESSAGE_ID, --user USER or --all" in invoke("dead", "retry", *arguments, exit_code=2).output
    invoke("dead", "retry", "no-id", exit_code=2)
    invoke("dead", "drop", uuid4(), exit_code=1)


@pytest.mark.slow
def test_with_redis_away_a_retried_message_waits_and_the_reconciler_enqueues_it(
    rows: Rows, services: Services, settings: Settings, bury: Bury, invoke: Invoke, nowhere: str, run_worker: RunWorker
) -> None:
    message = bury(SENDER, 1)[0]
    result = invoke("dead", "retry", message.message_id, redis_url=nowhere)
    assert "Redis is away: done in Postgres" in result.output
    with run_worker(settings):
        eventually(lambda: rows.processed(message.user_id) == [1])


def test_a_dropped_message_is_forgotten_by_everybody_and_stays_dead(
    rows: Rows, services: Services, bury: Bury, invoke: Invoke, ask: Ask
) -> None:
    first, second = bury(SENDER, 2)
    invoke("dead", "drop", first.message_id)
    assert [one["message_id"] for one in ask("dead", "list")["dead"]] == [str(second.message_id)]
    assert failed_jobs(services, first.user_id).get_job_ids() == [str(second.message_id)]
    assert services.lanes.client.exists(f"rq:job:{first.message_id}") == 0
    row = rows.message(first.message_id)
    assert row.state == "dead"
    assert row.dropped_at is not None
    assert "was dropped" in invoke("dead", "retry", first.message_id, exit_code=1).output
    assert "1 dead message redriven: 2" in invoke("lane", "redrive", first.user_id).output
    assert rows.message(first.message_id).state == "dead"


def test_a_dropped_message_that_was_redriven_all_the_same_is_listed_when_it_dies_again(
    rows: Rows, services: Services, bury: Bury, ask: Ask
) -> None:
    message = bury(SENDER, 1)[0]
    services.acts.drop(message.message_id, by="ann")
    rows.redrive(message.message_id)
    by_hand = ByHand(services.database, user_id=message.user_id)
    by_hand.fail(by_hand.begin(fence=2 * 10**15), fence=2 * 10**15)
    assert [one["message_id"] for one in ask("dead", "list")["dead"]] == [str(message.message_id)]


def test_two_operators_who_retry_at_once_redrive_once(rows: Rows, services: Services, bury: Bury) -> None:
    messages = bury(SENDER, 3)
    control = services.acts
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: control.redrive(by="ann"), range(8)))
    # Each once; which of two operators reaches Redis first is open, and the jobs' order decides nothing.
    assert sorted(services.lanes.jobs(messages[0].user_id)) == sorted(str(message.message_id) for message in messages)
    assert rows.waiting() == 3


# sessions


def test_a_users_sessions_are_shown_with_reasons_times_and_counts(
    rows: Rows, services: Services, settings: Settings, accept: Accept, invoke: Invoke, ask: Ask
) -> None:
    user_id = accept(SENDER, TEXT).user_id
    accept(SENDER, TEXT)
    work_off(services, settings)
    assert invoke("session", "end", f"demo:{SENDER}").output == "ended (operator)\n"
    accept(SENDER, TEXT)
    work_off(services, settings)
    newest, oldest = ask("session", "show", user_id)["sessions"]
    assert (newest["status"], newest["messages"], newest["ended_reason"]) == ("active", 1, None)
    assert (oldest["status"], oldest["messages"], oldest["replies"], oldest["ended_reason"]) == (
        "ended",
        2,
        2,
        "operator",
    )
    assert "operator" in invoke("session", "show", user_id).output


def test_an_end_with_messages_waiting_says_after_which_it_takes_effect(
    rows: Rows, services: Services, settings: Settings, accept: Accept, invoke: Invoke, ask: Ask
) -> None:
    user_id = accept(SENDER, TEXT).user_id
    accept(SENDER, TEXT)
    output = invoke("session", "end", user_id).output
    assert output == "noted: 2 messages waiting, the session ends after message 2\n"
    assert "after message 2 (operator)" in invoke("lane", user_id).output
    accept(SENDER, TEXT)
    work_off(services, settings)
    assert rows.processed(user_id) == [1, 2, 3]
    assert [one["messages"] for one in ask("session", "show", user_id)["sessions"]] == [1, 2]


def test_a_session_is_named_by_its_own_id_too_but_not_when_it_is_over(
    rows: Rows, services: Services, accept: Accept, invoke: Invoke
) -> None:
    user_id = accept(SENDER, TEXT).user_id
    rows.forget_messages()
    session_id = rows.session_of(user_id)
    assert invoke("session", "end", session_id).output == "ended (operator)\n"
    assert "ended at" in invoke("session", "end", session_id, exit_code=1).output
    assert "no open session" in invoke("session", "end", user_id, exit_code=1).output
    assert "there is no such user" in invoke("session", "end", uuid4(), exit_code=1).output


def test_an_escalated_session_is_handed_back_as_the_same(
    rows: Rows, services: Services, accept: Accept, invoke: Invoke, ask: Ask
) -> None:
    user_id = accept(SENDER, TEXT).user_id
    rows.forget_messages()
    assert "no open session" in invoke("session", "escalate", user_id, exit_code=1).output
    session_id = rows.session_of(user_id)
    assert ask("session", "escalate", session_id)["escalated"] == str(session_id)
    assert "escalated since" in invoke("lane", user_id).output
    assert ask("session", "hand-back", user_id)["handed_back"] == str(session_id)
    assert "no escalated session" in invoke("session", "hand-back", user_id, exit_code=1).output
