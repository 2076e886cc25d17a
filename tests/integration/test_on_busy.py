"""Messages that come faster than the bot answers, on real servers: one turn for many, a wait that outlives Redis."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from itertools import count, islice
from threading import Event
from typing import Any, ClassVar
from uuid import UUID

import pytest

from onelane.bootstrap import Services, open_services
from onelane.bot import AsyncTurn, Handler, Turn
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.dev.stack import PYTHON
from onelane.model import Attachment
from onelane.sessions import publish_policies
from tests.bots import answer_all
from tests.calls import Calls, Item, delivery, lease, settlement
from tests.conftest import DEADLINE_S, RunWorker, deliver, eventually
from tests.lane_state import due_ms, now_ms
from tests.processes import worker_process
from tests.rows import Rows
from tests.working_off import work_off

LONG: Item = {"on_busy": "collect", "collect_quiet_s": 50, "collect_max_s": 100}
"""A wait longer than any test."""


class Chat:
    """Somebody who writes, on a channel that is configured in one way."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.rows = Rows(services.database)
        self._numbers = count(1)
        self.user_id: UUID

    def write(self, *texts: str, **more: Any) -> None:
        """Write some messages, each a delivery of its own."""
        for text in texts:
            delivery = Delivery(senders=("alice",), external_id=f"m{next(self._numbers)}", text=text, **more)
            self.user_id = deliver(self.services, [delivery])[0].user_id

    def work_off(self, handler: Handler | None = None) -> list[str]:
        """Run all that waits, or will soon; return what was answered."""
        work_off(self.services, self.services.settings, handler or answer_all, patience_s=2)
        return [row.text for row in self.rows.replies(self.user_id)]

    @property
    def waits_s(self) -> float:
        """In how many seconds the lane is due."""
        return (due_ms(self.services, self.user_id) - now_ms(self.services)) / 1000


Begin = Callable[..., Chat]


@pytest.fixture
def chat(services: Services, settings: Settings) -> Iterator[Begin]:
    """Make a chat on a channel with the fields given; `services` has emptied the servers."""
    with ExitStack() as stack:

        def begin(**how: Any) -> Chat:
            channel = settings.channels["demo"].model_copy(update=how)
            with_channel = settings.model_copy(update={"channels": {"demo": channel}})
            vars(with_channel).pop("policies", None)  # those of the settings that were copied
            return Chat(stack.enter_context(closing(open_services(with_channel, redis_timeout_s=3))))

        yield begin


def test_what_is_written_within_a_moment_is_answered_together(chat: Begin) -> None:
    alice = chat(on_busy="collect", collect_quiet_s=0.3)
    alice.write("one", "two", "three")
    assert alice.work_off() == ["one two three"]


def test_what_closes_a_batch_ends_the_wait_and_is_answered_alone(chat: Begin) -> None:
    alice = chat(**LONG)
    alice.write("one", "two")
    assert alice.waits_s > 2
    alice.write("/help", closes=True)
    assert alice.work_off() == ["one two", "/help"]


def test_a_full_batch_waits_for_no_more(chat: Begin) -> None:
    alice = chat(**LONG, collect_max_messages=3)
    alice.write(*"abc")
    assert alice.work_off() == ["a b c"]


def test_where_texts_do_not_wait_a_photo_does_and_its_caption_ends_that(chat: Begin) -> None:
    alice = chat(**LONG, collect_text_waits=False)
    alice.write("photo", attachments=(Attachment(url="https://x.example/1.jpg"),))
    assert alice.waits_s > 2
    alice.write("caption")
    assert alice.work_off() == ["photo caption"]


def test_what_comes_while_a_turn_runs_waits_for_nothing_else(chat: Begin) -> None:
    alice = chat(**LONG, collect_max_messages=3)

    def answer(turn: Turn) -> str:
        if turn.message.text == "c":
            alice.write("d", "e")
        return answer_all(turn)

    alice.write(*"abc")
    assert alice.work_off(answer) == ["a b c", "d e"]


def test_neither_a_redelivery_nor_the_reconciler_moves_the_end_of_a_wait(chat: Begin) -> None:
    alice = chat(**LONG)
    alice.write("one")
    ends = due_ms(alice.services, alice.user_id)
    deliver(alice.services, [Delivery(senders=("alice",), external_id="m1", text="one")])
    alice.services.lanes.bring_back([alice.user_id])
    assert due_ms(alice.services, alice.user_id) == ends


def test_a_redis_that_forgets_a_wait_ends_it_and_all_are_answered_together(chat: Begin) -> None:
    alice = chat(**LONG)
    alice.write("one", "two")
    alice.services.lanes.client.flushall()
    alice.services.lanes.bring_back([alice.user_id])  # as the reconciler does
    assert alice.work_off() == ["one two"]


PHOTO = Attachment(url="https://x.example/1.jpg")


@pytest.mark.parametrize(("on_busy", "turns"), [("queue", 11), ("collect", 1)])
def test_an_album_of_a_new_contact_is_one_session_in_order(chat: Begin, on_busy: str, turns: int) -> None:
    alice = chat(on_busy=on_busy, collect_quiet_s=0.5)
    seen: list[int] = []

    def answer(turn: Turn) -> str:
        seen.extend(message.seq for message in turn.messages)
        return answer_all(turn)

    with ThreadPoolExecutor(11) as threads:  # each photo is a webhook of its own; the fifth has a text beside it
        for nr in range(10):
            threads.submit(alice.write, f"photo{nr}", attachments=(PHOTO,))
        threads.submit(alice.write, "look")
    replies = alice.work_off(answer)
    assert len(replies) == turns
    assert sorted(" ".join(replies).split()) == sorted(["look", *(f"photo{nr}" for nr in range(10))])
    assert seen == list(range(1, 12))
    assert len(alice.rows.sessions(alice.user_id)) == 1


def test_who_writes_all_the_time_is_answered_and_every_message_once(chat: Begin) -> None:
    alice = chat(on_busy="interrupt", interrupt_max=3)
    runs: list[list[str]] = []

    def answer(turn: Turn) -> str:
        runs.append([message.text for message in turn.messages])
        if len(runs) < 10:
            alice.write(str(len(runs)))
        return answer_all(turn)

    alice.write("0")
    replies = alice.work_off(answer)
    assert replies == ["0 1 2 3", "4 5 6 7", "8 9"]
    assert [len(run) for run in runs] == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]


@pytest.mark.slow
def test_who_types_faster_than_the_bot_answers_is_answered_and_little_is_thrown_away(
    chat: Begin, run_worker: RunWorker
) -> None:
    alice = begun(chat, answer_within_a_second)
    with run_worker(alice.services.settings):
        for nr in range(10):
            alice.write(str(nr))
            Event().wait(0.3)
        eventually(lambda: alice.rows.waiting() == 0)
    assert " ".join(alice.rows.texts(alice.user_id)).split() == [str(nr) for nr in range(10)]
    begun_at = [run.partition(" ")[0] for run in Stage.ran]
    assert max(map(begun_at.count, begun_at)) <= 1 + 3, "more than interrupt_max were thrown away in a row"


def test_a_shielded_turn_is_committed_whatever_comes(chat: Begin) -> None:
    alice = chat(on_busy="interrupt")

    def answer(turn: Turn) -> str:
        with turn.shield():
            if turn.message.text == "one":
                alice.write("two")
        return answer_all(turn)

    alice.write("one")
    assert alice.work_off(answer) == ["one", "two"]


def test_the_jobs_of_what_a_turn_took_in_leave_with_it(chat: Begin) -> None:
    alice = chat(rate_per_minute=1)  # so that nothing is worked off after it

    def answer(turn: Turn) -> str:
        alice.write("two")
        turn.newer()
        return answer_all(turn)

    alice.write("one")
    assert alice.work_off(answer) == ["one two"]
    assert alice.services.lanes.jobs(alice.user_id) == []


class Stage:
    """What the handlers below share with the test."""

    ran: ClassVar[list[str]] = []
    at_work: ClassVar[Event] = Event()
    may_end: ClassVar[Event] = Event()

    @classmethod
    def reset(cls) -> None:
        """Begin a test."""
        cls.ran.clear()
        cls.at_work.clear()
        cls.may_end.clear()


def watch_for_newer(turn: Turn) -> str:
    """Answer two messages; with one, wait until something newer cancels the turn."""
    Stage.at_work.set()
    ends = time.monotonic() + DEADLINE_S
    while len(turn.messages) == 1 and not turn.cancelled:
        assert time.monotonic() < ends
        time.sleep(0.005)
    return answer_all(turn)


async def wait_for_newer(turn: AsyncTurn) -> str:
    """Answer two messages; with one, wait for ever, and take some time to leave."""
    Stage.ran.append(f"begins {len(turn.messages)}")
    Stage.at_work.set()
    try:
        if len(turn.messages) == 1:
            await asyncio.sleep(2 * DEADLINE_S)
    finally:
        await asyncio.sleep(0.05)
        Stage.ran.append(f"ends {len(turn.messages)}")
    return " ".join(message.text for message in turn.messages)


def catch_everything(turn: Turn) -> str:
    """Answer two messages; with one, begin what must not be thrown away when that has happened, and apologise."""
    Stage.at_work.set()
    try:
        if len(turn.messages) == 1:
            eventually(lambda: turn.cancelled)
            with turn.shield():
                return "thrown away"
    except Exception:  # noqa: BLE001 - what some bots do
        return "sorry"
    return answer_all(turn)


async def catch_a_cancellation(turn: AsyncTurn) -> str:
    """Do the same, in a coroutine that was cancelled."""
    Stage.at_work.set()
    try:
        await asyncio.sleep(2 * DEADLINE_S if len(turn.messages) == 1 else 0)
    except asyncio.CancelledError:
        with suppress(Exception), turn.shield():
            return "thrown away"
        return "sorry"
    return " ".join(message.text for message in turn.messages)


async def answer_within_a_second(turn: AsyncTurn) -> str:
    """Take a second for an answer."""
    text = " ".join(message.text for message in turn.messages)
    Stage.ran.append(text)
    await asyncio.sleep(1)
    return text


async def work_under_a_shield(turn: AsyncTurn) -> str:
    """Do what must not be thrown away, until the test lets it end."""
    with turn.shield():
        Stage.at_work.set()
        await asyncio.to_thread(Stage.may_end.wait, DEADLINE_S)
    return turn.message.text


def begun(chat: Begin, handler: Callable[..., Any]) -> Chat:
    """Begin a chat whose worker interrupts."""
    Stage.reset()
    return chat(on_busy="interrupt", handler=f"{__name__}:{handler.__name__}")


@pytest.mark.parametrize("handler", [watch_for_newer, wait_for_newer, catch_everything, catch_a_cancellation])
def test_a_newer_message_cancels_the_turn_and_the_next_answers_both(
    chat: Begin, run_worker: RunWorker, handler: Callable[..., Any]
) -> None:
    alice = begun(chat, handler)
    alice.write("one")
    with run_worker(alice.services.settings):
        assert Stage.at_work.wait(DEADLINE_S)
        alice.write("two")
        eventually(lambda: alice.rows.texts(alice.user_id) == ["one two"])
    assert Stage.ran in ([], ["begins 1", "ends 1", "begins 2", "ends 2"])


def test_a_shielded_coroutine_is_not_cancelled(chat: Begin, run_worker: RunWorker) -> None:
    alice = begun(chat, work_under_a_shield)
    alice.write("one")
    with run_worker(alice.services.settings) as worker:
        assert Stage.at_work.wait(DEADLINE_S)
        alice.write("two")
        eventually(lambda: any(holding._newest_seq for holding in worker.runner._keeper.holdings))
        Stage.may_end.set()
        eventually(lambda: alice.rows.texts(alice.user_id) == ["one", "two"])


def test_whoever_is_answered_has_further_messages_rejected_once(chat: Begin) -> None:
    alice = chat(on_busy="reject", busy_reply="One moment.")

    def answer(turn: Turn) -> str:
        if turn.message.text in {"one", "four"}:
            alice.write("two", "three")
        return answer_all(turn)

    alice.write("one")
    assert alice.work_off(answer) == ["One moment.", "one"]
    assert alice.rows.states(alice.user_id) == ["processed"] * 3
    alice.write("four")
    assert alice.work_off(answer) == ["One moment.", "one", "One moment.", "four"]
    assert alice.rows.states(alice.user_id) == ["processed"] * 6


def test_what_a_paused_user_writes_is_not_rejected(chat: Begin) -> None:
    alice = chat(on_busy="reject", busy_reply="One moment.")
    alice.write("one")
    alice.rows.pause(alice.user_id)
    alice.write("two")
    alice.rows.resume(alice.user_id)
    assert alice.work_off() == ["one", "two"]


def test_what_comes_into_a_session_that_a_human_has_is_not_rejected(chat: Begin) -> None:
    alice = chat(on_busy="reject", busy_reply="One moment.")
    alice.write("one")
    alice.work_off()
    alice.services.acts.escalate(alice.user_id, by="ann")
    alice.write("two", "three")
    assert alice.work_off() == ["one"]
    assert alice.rows.states(alice.user_id) == ["processed"] * 3


def test_what_comes_into_a_session_that_will_be_a_humans_is_not_rejected(chat: Begin) -> None:
    alice = chat(on_busy="reject", busy_reply="One moment.")
    publish_policies(alice.services.database, alice.services.settings.policies)
    calls, said = Calls(alice.services.database), [{"text": "One moment."}]
    [yesterday] = calls.accept(delivery("alice", "m1", now="2026-01-01T10:00:00Z", busy_replies=said))
    today = "2026-01-02T10:00:00Z"
    [echo] = calls.accept(delivery("alice", "m2", "I take this", kind="echo", on_echo="escalate", now=today))
    assert echo["is_waiting"], "it is not open yet"
    calls.accept(delivery("alice", "m3", now=today, busy_replies=said))
    alice.user_id = UUID(yesterday["user_id"])
    alice.services.lanes.bring_back([alice.user_id])
    assert alice.work_off() == ["hello"]
    assert [row.status for row in alice.rows.sessions(alice.user_id)] == ["ended", "escalated"]


def test_a_busy_message_dies_of_nothing_when_its_worker_does(chat: Begin) -> None:
    alice = chat(on_busy="reject")
    alice.write("one", "two")
    calls = Calls(alice.services.database)
    [first] = calls.begin(lease(alice.user_id, 1))
    calls.settle(settlement(first, 1))
    alice.write("three")
    [begun] = calls.begin(lease(alice.user_id, 2, taken_over=True))
    assert begun["outcome"] == "idle"
    assert alice.rows.states(alice.user_id) == ["processed"] * 3


def write_beside_a_turn(alice: Chat, messages: int) -> Calls:
    """Write one message that is answered, and many that are not; Redis learns of the first alone."""
    calls = Calls(alice.services.database)
    alice.write("one")
    busy = (delivery("alice", f"busy {nr}", busy_replies=[]) for nr in range(messages))
    while some := list(islice(busy, 100)):
        calls.accept(*some)
    return calls


def test_of_many_busy_messages_some_are_settled_at_each_begin(chat: Begin) -> None:
    """More than Postgres settles within the time of a statement were begun with again for ever."""
    alice = chat(on_busy="reject")
    calls = write_beside_a_turn(alice, 180)
    [first] = calls.begin(lease(alice.user_id, 1))
    [settled] = calls.settle(settlement(first, 1, goes_on=True))
    begun, found = settled["next"], []
    while begun["outcome"] == "again":
        found.append((begun["fence"], alice.rows.user(alice.user_id).waiting))
        [begun] = calls.begin(lease(alice.user_id, 1))
    assert found == [(1, 130), (1, 80), (1, 30)]
    assert begun["outcome"] == "idle"
    assert alice.rows.states(alice.user_id) == ["processed"] * 181


def test_a_lane_comes_back_until_all_busy_messages_are_settled(chat: Begin) -> None:
    alice = chat(on_busy="reject")
    write_beside_a_turn(alice, 101)
    assert alice.work_off() == ["one"]
    assert alice.rows.states(alice.user_id) == ["processed"] * 102


FAULTY = [*PYTHON, "tests.faulty_worker"]
POINTS = ["lease 1", "begin_turns 1", "handler 1", "settle_turns 1", "finish 1"]
ALL = "tests.bots:answer_all"


@pytest.mark.slow
@pytest.mark.parametrize("on_busy", ["collect", "interrupt", "reject"])
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_kill_9_anywhere_leaves_nobody_unanswered_and_answers_nobody_twice(
    chat: Begin, on_busy: str, side: str, point: str
) -> None:
    alice = chat(on_busy=on_busy, collect_quiet_s=0.2, busy_reply="One moment.")
    settings = alice.services.settings.model_copy(update={"lock_ttl_s": 1})
    alice.write("one", "two")
    with worker_process(settings, program=FAULTY, handler=ALL, fault=f"kill {side} {point}") as doomed:
        assert doomed.wait(DEADLINE_S) == -signal.SIGKILL
    alice.write("three")
    if side == "before":
        alice.services.lanes.client.flushall()
    with worker_process(settings, handler=ALL):
        eventually(lambda: alice.rows.waiting() == 0)
    assert alice.rows.states(alice.user_id) == ["processed"] * 3
    answers = [text for text in alice.rows.texts(alice.user_id) if text != "One moment."]
    possible = {"collect": COLLECTED, "interrupt": COLLECTED, "reject": [["one"], ["one", "three"]]}
    assert answers in possible[on_busy]
    assert len(alice.rows.sessions(alice.user_id)) == 1


COLLECTED = [["one two", "three"], ["one two three"]]


@pytest.mark.slow
@pytest.mark.parametrize("on_busy", ["collect", "interrupt"])
@pytest.mark.parametrize("point", ["before handler 1", "after handler 1", "before settle_turns 1"])
def test_who_wakes_after_a_takeover_answers_nothing_of_the_batch(chat: Begin, on_busy: str, point: str) -> None:
    alice = chat(on_busy=on_busy, collect_quiet_s=0.2)
    settings = alice.services.settings.model_copy(update={"lock_ttl_s": 1})
    alice.write("one", "two")
    with worker_process(settings, program=FAULTY, handler=ALL, fault=f"stop {point}", stall_limit_s=600) as frozen:
        eventually(lambda: os.waitid(os.P_PID, frozen.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG))
        alice.write("three")
        with worker_process(settings, handler=ALL):
            eventually(lambda: alice.rows.waiting() == 0)
            frozen.send_signal(signal.SIGCONT)
            alice.write("four")
            eventually(lambda: alice.rows.waiting() == 0)
    assert " ".join(alice.rows.texts(alice.user_id)) == "one two three four"
    assert len(alice.rows.sessions(alice.user_id)) == 1
