"""A webhook of several messages: each stands or fails alone, and what cannot be accepted hides nothing."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import permutations
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from onelane.bootstrap.services import INTAKE_REDIS_TIMEOUT_S
from onelane.channels.provider import Inbound, Parsed
from onelane.config import Channel, Settings
from onelane.deliveries import Accepted, Delivery, Kind, Quarantined, Status
from onelane.errors import BacklogFull, LanesUnavailable, OnelaneError, StoreAway, StoreRefused, StoreUnavailable
from onelane.failures import Failures
from onelane.gathering import Gatherer
from onelane.inbox import intake, patience
from onelane.inbox.intake import ANSWER_MAX_S, Intake
from onelane.inbox.items import item_of, whose
from onelane.inbox.patience import PATIENT_MAX
from onelane.inbox.quarantine import Quarantine
from onelane.inbox.receiving import Receiving
from onelane.inbox.statuses import Statuses
from onelane.lanes.enqueueing import Enqueueing
from onelane.postgres.faults import NOT_STORABLE
from onelane.rejecting import BusyReplies
from tests.calls import Item
from tests.conftest import DEADLINE_S, eventually

SETTINGS = Settings(
    database_url="postgresql://host/db",
    redis_url="redis://host",
    channels={"demo": Channel(provider="standard", secrets=("whsec_c2VjcmV0IG9mIHRoZSBkZW1vIGNoYW5uZWw=",))},
)
AWAY, UNAVAILABLE, UNSTORABLE = "53100", "40001", "22021"
ODD: Any = {"eve": {"odd": {"inner": object()}}}
"""Parts of a line that is no JSON, by who wrote it."""


class Answers:
    """A database that answers what it is given by sender, at once and when asked to wait."""

    def __init__(self, at_once: dict[str, Item], later: dict[str, Item] | None = None) -> None:
        self.at_once, self.later = at_once, later or {}
        self.waited_for: list[str] = []
        self.enqueued: list[UUID] = []
        self.may_wait = threading.Event()
        """Who is to wait waits until it is set."""
        self.may_wait.set()

    def close(self) -> None:
        """Answer as a breaker does."""

    def ask(self, items: Sequence[Item], waits: bool) -> list[Item]:
        """Answer each item."""
        names = [item["senders"][0] for item in items]
        if not waits:
            return [self.at_once[name] for name in names]
        assert self.may_wait.wait(DEADLINE_S)
        self.waited_for += names
        return [self.later.get(name, self.at_once[name]) for name in names]

    def enqueue_many(self, messages: Sequence[tuple[UUID, UUID]]) -> int:
        """Take what lanes are given."""
        self.enqueued += [user_id for user_id, *_ in messages]
        self.may_wait.set()
        return len(messages)


def accepted(**extra: Any) -> Item:
    return {
        "outcome": "accepted",
        "user_id": str(uuid4()),
        "message_id": str(uuid4()),
        "seq": 1,
        "is_waiting": True,
        "has_conflict": False,
        **extra,
    }


def refused(sqlstate: str) -> Item:
    return {"outcome": "refused", "sqlstate": sqlstate}


FULL = {"outcome": "full", "user_id": str(uuid4())}
SKIPPED = {"outcome": "skipped"}


def take(database: Any, note: Any = lambda _message: None) -> list[Accepted]:
    deliveries = [Delivery(senders=(name,), external_id=name) for name in database.at_once]
    gatherer = Gatherer(database.ask)
    try:
        return Intake(SETTINGS, gatherer, database, Enqueueing(database)).accept("demo", deliveries, note)
    finally:
        gatherer.close()


GRAVEST: dict[str, tuple[type[OnelaneError], list[Item]]] = {
    "the whole server": (StoreAway, [refused(AWAY), SKIPPED, refused(UNSTORABLE), FULL]),
    "a lock": (StoreUnavailable, [SKIPPED, refused(UNSTORABLE), FULL]),
    "a conflict": (StoreUnavailable, [refused(UNAVAILABLE), refused(UNSTORABLE), FULL]),
    "what cannot be stored": (StoreRefused, [refused(UNSTORABLE), FULL]),
    "a full backlog": (BacklogFull, [FULL]),
}


@pytest.mark.parametrize(("kind", "answers"), GRAVEST.values(), ids=GRAVEST.keys())
def test_the_gravest_refusal_of_a_webhook_is_raised_whichever_came_first(
    kind: type[OnelaneError], answers: list[Item]
) -> None:
    for order in permutations([*answers, accepted()]):
        with pytest.raises(OnelaneError) as raised:
            take(Answers({str(nr): answer for nr, answer in enumerate(order)}))
        assert raised.type is kind


def test_what_stands_beside_a_refusal_is_counted_noted_and_on_its_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    monkeypatch.setattr(intake, "DELIVERIES", SimpleNamespace(count=counted.append))
    bob, carol = accepted(), accepted(has_conflict=True)
    noted: list[Accepted] = []
    database = Answers({"alice": FULL, "bob": bob, "alice again": FULL, "carol": carol})
    with capture_logs() as logs, pytest.raises(BacklogFull):
        take(database, noted.append)
    assert [str(message.user_id) for message in noted] == [bob["user_id"], carol["user_id"]]
    assert [str(user_id) for user_id in database.enqueued] == [bob["user_id"], carol["user_id"]]
    assert sorted(counted) == ["accepted", "accepted", "full", "full"]
    refusals = [line for line in logs if line["event"] == "delivery_not_accepted"]
    assert [(line["outcome"], line["user_id"]) for line in refusals] == [("full", FULL["user_id"])] * 2
    assert [line["event"] for line in logs].count("identity_conflict") == 1


class Listed(Answers):
    """Answers everything alike, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__({})
        self.items: list[Item] = []

    def ask(self, items: Sequence[Item], waits: bool) -> list[Item]:
        """Accept each item."""
        self.items += items
        return [accepted() for _ in items]


def test_a_word_that_ends_the_session_is_never_answered_together_with_other_messages() -> None:
    database = Listed()
    said = {"hello": Kind.MESSAGE, " /NEW ": Kind.MESSAGE, "/new": Kind.EVENT}
    lines = [Delivery(senders=("s",), external_id=text, text=text, kind=kind) for text, kind in said.items()]
    gatherer = Gatherer(database.ask)
    try:
        Intake(SETTINGS, gatherer, database, Enqueueing(database)).accept("demo", lines)  # type: ignore[arg-type]
    finally:
        gatherer.close()
    assert [item.get("closes", False) for item in database.items] == [False, True, False]
    hashes = [item["content_hash"] for item in database.items]
    assert hashes == [item_of(line)["content_hash"] for line in lines], "a redelivery is the same, whatever ends"


@pytest.mark.parametrize("names", ["eve", "eve alice bob", "alice eve bob", "alice bob eve"])
def test_a_line_that_cannot_be_written_is_refused_alone(names: str) -> None:
    """It failed its whole webhook before anything of it was asked, at every redelivery."""
    database, noted = Listed(), list[Accepted]()
    lines = [Delivery(senders=(name,), external_id=name, parts=ODD.get(name, {})) for name in names.split()]
    gatherer = Gatherer(database.ask)
    try:
        with capture_logs() as logs:
            tested = Intake(SETTINGS, gatherer, database, Enqueueing(database))  # type: ignore[arg-type]
            outcomes = tested.outcomes("demo", lines, noted.append)
    finally:
        gatherer.close()
    assert [item["senders"] for item in database.items] == [[name] for name in names.split() if name != "eve"]
    assert isinstance(refused := outcomes.pop(names.split().index("eve")), StoreRefused)
    assert refused.sqlstate == NOT_STORABLE
    assert outcomes == noted
    assert [line["event"] for line in logs] == ["adapter_failed", "delivery_not_accepted"]


def test_a_duplicate_is_no_new_conflict_since_its_old_number_may_be_somebody_elses_by_now() -> None:
    with capture_logs() as logs:
        take(Answers({"alice": accepted(outcome="duplicate", has_conflict=True)}))
    assert logs == []


def test_nobody_waits_for_a_locked_user_before_the_others_are_on_their_lanes() -> None:
    bob = accepted()
    database = Answers({"alice": {**SKIPPED, "user_id": str(uuid4())}, "bob": bob}, {"alice": accepted()})
    database.may_wait.clear()
    alice, other = take(database)
    assert [str(user_id) for user_id in database.enqueued] == [bob["user_id"], str(alice.user_id)]
    assert str(other.user_id) == bob["user_id"]


def test_one_new_user_whose_name_is_held_keeps_no_other_new_user_from_being_waited_for() -> None:
    """Of neither the id is known yet."""
    database = Answers({"alice": SKIPPED, "bob": SKIPPED, "carol": refused(UNSTORABLE), "dave": SKIPPED})
    with pytest.raises(StoreUnavailable):
        take(database)
    assert sorted(database.waited_for) == ["alice", "bob", "dave"]


class Stalling(Listed):
    """Answers the first list, and nothing after it before the end of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.suspected, self.is_over = 0, threading.Event()

    def suspect(self) -> None:
        """Count, as a breaker would."""
        self.suspected += 1

    def ask(self, items: Sequence[Item], waits: bool) -> list[Item]:
        """Stall once something is accepted."""
        if self.items:
            assert self.is_over.wait(DEADLINE_S)
        return super().ask(items, waits)


def test_a_delivery_of_many_people_is_answered_in_time_and_what_stands_by_then_stands_and_is_on_its_lanes() -> None:
    database, noted = Stalling(), list[Accepted]()
    lines = [Delivery(senders=(f"user {nr}",), external_id=f"m{nr}", text="hello") for nr in range(1_000)]
    gatherer, began = Gatherer(database.ask), time.monotonic()
    try:
        intake = Intake(SETTINGS, gatherer, database, Enqueueing(database))  # type: ignore[arg-type]
        outcomes = intake.outcomes("demo", lines, noted.append, ends=began + 4)
        assert 4 <= time.monotonic() - began < DEADLINE_S / 2
    finally:
        database.is_over.set()
        gatherer.close()
    standing = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
    assert len(database.enqueued) == len(noted) == len(standing) > 0
    assert [type(one) for one in outcomes[len(standing) :]] == [StoreUnavailable] * (1_000 - len(standing))
    assert database.suspected == 1


def test_the_lines_of_ten_thousand_people_are_told_apart_at_once() -> None:
    """Each has a number and a scoped id, both new: who is whose was looked up once for each of them."""
    items: list[Item] = [{"senders": [f"+49{nr}", f"DE.{nr}"]} for nr in range(10_000)]
    began = time.process_time()
    assert len(set(whose(items))) == len(items)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(("is_ours", "on_echo"), [(True, "note"), (False, "escalate")])
def test_what_the_bots_own_app_says_elsewhere_hands_over_to_nobody(is_ours: bool, on_echo: str) -> None:
    asked: list[Item] = []

    def ask(items: Sequence[Item], _waits: bool) -> list[Item]:
        asked.extend(items)
        return [accepted(is_waiting=False) for _ in items]

    gatherer = Gatherer(ask)
    try:
        taking: Any = Answers({})
        echo = Delivery(senders=("alice",), external_id="m1", kind=Kind.ECHO, is_ours=is_ours)
        Intake(SETTINGS, gatherer, taking, Enqueueing(taking)).accept("demo", [echo])
    finally:
        gatherer.close()
    assert [item["on_echo"] for item in asked] == [on_echo]
    assert "is_ours" not in asked[0]


def test_while_postgres_hangs_two_requests_wait_on_and_the_others_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All threads of a web waited for the same hanging statement, and whoever came then waited for a thread."""
    monkeypatch.setattr(patience, "HANGS_S", 0.01)
    monkeypatch.setattr(intake, "ANSWER_MAX_S", DEADLINE_S)
    database = Answers({"alice": accepted()})
    answers = threading.Event()

    def hang(items: Sequence[Item], waits: bool) -> list[Item]:
        assert answers.wait(DEADLINE_S)
        return database.ask(items, waits)

    suspected = SimpleNamespace(close=lambda: None, suspect=lambda: None)
    gatherer = Gatherer(hang)
    tested = Intake(SETTINGS, gatherer, suspected, Enqueueing(database))  # type: ignore[arg-type]

    def deliver(_nr: int) -> list[Accepted]:
        return tested.accept("demo", [Delivery(senders=("alice",), external_id="alice")])

    with ThreadPoolExecutor(PATIENT_MAX) as patient:
        waiting = [patient.submit(deliver, nr) for nr in range(PATIENT_MAX)]
        eventually(lambda: tested._patience._places._value == 0)
        with pytest.raises(StoreUnavailable):
            deliver(PATIENT_MAX)
        assert not any(one.done() for one in waiting)
        answers.set()
        assert all(one.result(DEADLINE_S) for one in waiting)
    gatherer.close()
    assert tested._patience._places._value == PATIENT_MAX


class SlowServers:
    """Redis is silent and Postgres slow, on a clock of their own: each wait is as long as it may be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, accepts_s: float) -> None:
        self.now = 1_000.0
        self._accepts_s = accepts_s
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def lets_ask(self, within_s: float) -> bool:
        self.probed_within_s = within_s
        return True

    def suspect(self) -> None:
        """Take it as a breaker does."""

    close = suspect

    def stands_still_s(self) -> float:
        return 0.0

    def submit_all(self, asked: Sequence[Any]) -> list[Future[Item]]:
        """Accept just in time, as `accept` does."""
        self.now += self._accepts_s
        futures = [Future[Item]() for _ in asked]
        for future in futures:
            future.set_result(accepted(outbox=[str(uuid4())]))
        return futures

    def ask(self, _function: str, items: Sequence[Item], *, waits: bool, within_s: float) -> list[Item]:
        """Note statuses just in time."""
        self.now += 0.99 * within_s
        return [{"outcome": "moved", "goes_on": True, "failed": True, "state": "failed", "user_id": str(uuid4())}]

    def row(self, _query: str, _params: object, *, within_s: float) -> None:
        """Be too late."""
        self.now += within_s
        raise StoreUnavailable

    def enqueue_many(self, _messages: object) -> None:
        self.now += INTAKE_REDIS_TIMEOUT_S
        raise LanesUnavailable

    def make_all_due(self, _users: object) -> None:
        self.enqueue_many(())


@pytest.mark.parametrize(("waited_s", "accepts_s"), [(0.0, ANSWER_MAX_S - 0.01), (1.0, 1.4), (2.0, 0.4)])
def test_all_that_a_webhook_waits_for_shares_its_three_seconds(
    waited_s: float, accepts_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was silent, Postgres slow, and statuses, failures and the quarantine each had time of their own."""
    servers: Any = SlowServers(monkeypatch, accepts_s)
    items: list[Any] = [
        Delivery(senders=("alice",), external_id="m1"),
        Status(provider_id="p1", state="failed"),
        Quarantined("x"),
    ]
    provider: Any = SimpleNamespace(
        verify=lambda _request: None, parse=lambda _request: Parsed(items), redelivers=True, sender=None
    )
    busy = BusyReplies(SETTINGS, {}, Enqueueing(servers))
    taking = Intake(SETTINGS, servers, servers, Enqueueing(servers), busy=busy)
    statuses = Statuses(servers, {"demo": provider}, servers, Failures(servers, Enqueueing(servers)))
    receiving = Receiving({"demo": provider}, servers, taking, statuses, Quarantine(servers, 9, 9))
    began = servers.now
    with pytest.raises(StoreUnavailable):
        receiving.receive("demo", Inbound(url="", headers={}, content_type="", body=b""), lambda _line: None, waited_s)
    assert waited_s + servers.now - began <= 3.0
    assert waited_s + servers.probed_within_s <= 3.0
