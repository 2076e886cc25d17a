"""What is known of a request is kept and tried again until Postgres has it."""

import asyncio
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any
from uuid import uuid4

import pytest

from onelane.config import Settings
from onelane.errors import StoreRefused, StoreUnavailable
from onelane.model import JsonObject, Lease
from onelane.outbox.records import SendRecords
from onelane.outbox.reply import BeginOutcome, Deed, Fate
from onelane.postgres.breaker import Breaker
from onelane.turns import holds
from tests import loops
from tests.conftest import DEADLINE_S, eventually
from tests.shipping import waiting

Item = JsonObject
LEASE = Lease(user_id=uuid4(), token="w:1", fence=7, taken_over=True)
SENT = Fate(Deed.ACCEPTED, provider_id="p1")


class Store:
    """Answers, or raises, what it is given, in order; then the last for ever."""

    def __init__(self, *answers: JsonObject | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Item]] = []
        self.breaker = Breaker(lambda: None)

    def asks(self, function: str) -> Callable[[Sequence[Item], bool], list[JsonObject]]:
        def ask(items: Sequence[Item], waits: bool) -> list[JsonObject]:
            self.asked += [(function, dict(item)) for item in items]
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, Exception):
                raise answer
            return [answer for _ in items]

        return ask


def records(store: Store, hold_s: float = 60) -> SendRecords:
    settings = Settings(database_url="postgres://u@h/d", redis_url="redis://h", commit_hold_s=hold_s)
    return SendRecords(settings, store)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "PAUSE_S", 0.001)
    monkeypatch.setattr(holds, "PAUSE_MAX_S", 0.001)


def settle(store: Store, hold_s: float = 60, *, goes_on: bool = False) -> Any:
    return loops.run(records(store, hold_s).settle(LEASE, waiting(), SENT, goes_on=goes_on))


def test_an_answer_is_kept_until_postgres_is_back() -> None:
    store = Store(StoreUnavailable("away"), StoreUnavailable("away"), {"outcome": "settled", "state": "sent"})
    store.breaker.open("away")
    assert settle(store).state == "sent"
    assert len(store.asked) == 3
    assert not store.breaker.is_open


def test_an_answer_is_kept_for_commit_hold_s() -> None:
    with pytest.raises(StoreUnavailable):
        settle(Store(StoreUnavailable("away")), hold_s=0)


def test_a_mark_that_is_refused_does_not_undo_what_was_answered() -> None:
    store = Store(StoreRefused("22023"), {"outcome": "settled", "state": "sent"})
    assert settle(store, goes_on=True).state == "sent"
    assert [item["goes_on"] for _, item in store.asked] == [True, False]
    with pytest.raises(StoreRefused):
        settle(Store(StoreRefused("22023")))


def test_a_settlement_names_the_request_and_what_became_of_it() -> None:
    store = Store({"outcome": "settled", "state": "pending"})
    reply, fate = waiting(attempt=3), Fate(Deed.NOT_NOW, wait_s=2.5, counts=False)
    loops.run(records(store).settle(LEASE, reply, fate, goes_on=True))
    [(function, item)] = store.asked
    assert function == "settle_sends"
    assert item == {
        "user_id": str(LEASE.user_id),
        "fence": 7,
        "token": "w:1",
        "deadline_s": 25,
        "reply_id": str(reply.id),
        "attempt": 3,
        "outcome": "not_now",
        "provider_id": None,
        "failure": None,
        "failure_code": None,
        "wait_s": 2.5,
        "scope": "user",
        "counts": False,
        "route": None,
        "goes_on": True,
    }


def test_a_mark_whose_answer_was_lost_is_asked_for_again_under_the_same_lease() -> None:
    answer = {"outcome": "send", "fence": 7, "reply": waiting().model_dump(mode="json", exclude={"asked_at"})}
    store = Store(StoreUnavailable("the connection broke"), answer)
    begun = loops.run(records(store).begin(LEASE, Event()))
    assert begun.outcome is BeginOutcome.SEND
    assert [item["token"] for _, item in store.asked] == ["w:1"] * 2


def test_who_has_lost_the_lease_marks_nothing_more() -> None:
    store, cancelled = Store(StoreUnavailable("away")), Event()
    cancelled.set()
    with pytest.raises(StoreUnavailable):
        loops.run(records(store).begin(LEASE, cancelled))
    assert len(store.asked) == 1


def test_the_age_of_a_mark_is_counted_from_when_it_was_asked_for() -> None:
    reply = waiting()
    old = reply.model_copy(update={"asked_at": reply.asked_at - 10})
    assert old.seconds_since(old.sending_at) >= 10


class SlowStore(Store):
    """Answers once it is let go."""

    def __init__(self, *answers: JsonObject) -> None:
        super().__init__(*answers)
        self.goes_on = Event()

    def asks(self, function: str) -> Callable[[Sequence[Item], bool], list[JsonObject]]:
        ask = super().asks(function)

        def ask_slowly(items: Sequence[Item], waits: bool) -> list[JsonObject]:
            answers = ask(items, waits)
            assert self.goes_on.wait(DEADLINE_S)
            return answers

        return ask_slowly


def test_nothing_is_marked_for_who_has_given_up_and_what_was_answered_is_stored_all_the_same() -> None:
    """Whoever finds the mark takes the reply for one that may have been sent."""
    store = SlowStore({"outcome": "wait", "fence": 7, "wait_ms": 1, "state": "sent"})
    tested = records(store)
    others, ours = (LEASE.model_copy(update={"user_id": uuid4()}) for _ in range(2))

    def under_way(lease: Lease) -> list[asyncio.Task[Any]]:
        begin, settle = tested.begin(lease, Event()), tested.settle(lease, waiting(), SENT, goes_on=False)
        return [asyncio.create_task(begin), asyncio.create_task(settle)]

    def are_waiting() -> bool:
        return all(len(one._gatherer._grouping._waiting) == 1 for one in tested._asking.values())

    async def give_up() -> None:
        first = under_way(others)
        await asyncio.to_thread(eventually, lambda: len(store.asked) == 2)
        given_up = under_way(ours)
        await asyncio.to_thread(eventually, are_waiting)
        for one in given_up:
            one.cancel()
        await asyncio.wait(given_up)
        store.goes_on.set()
        await asyncio.wait(first)
        await tested.begin(others, Event())

    loops.run(give_up())
    eventually(lambda: ("settle_sends", str(ours.user_id)) in _asked(store))
    assert ("begin_sends", str(ours.user_id)) not in _asked(store)


def _asked(store: Store) -> set[tuple[str, str]]:
    return {(function, item["user_id"]) for function, item in store.asked}
