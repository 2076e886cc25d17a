"""Which items share a call, when it leaves, and whose an error is, in whatever order calls are answered."""

from collections import defaultdict
from concurrent.futures import Future
from functools import partial
from itertools import count
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from onelane.errors import StoreAway, StoreRefused, StoreUnavailable
from onelane.gathering import grouping as rules
from onelane.gathering.grouping import Grouping
from onelane.gathering.requests import PIECE_MAX, Answers, Call, Request
from onelane.model import JsonObject
from onelane.postgres.faults import LOCK_NOT_AVAILABLE, QUERY_CANCELED

DONE = "done"
WHOSE = [f"{kind} {nr}" for kind in ("free", "held", "refused", "slow", "unreadable") for nr in range(3)]
"""The kind tells what becomes of the user's items."""
TIMED_OUT = StoreUnavailable("too long", QUERY_CANCELED)
REFUSED = {"outcome": "refused", "sqlstate": "23514"}
SKIPPED = {"outcome": "skipped"}
LOCK_TIMED_OUT = {"outcome": "refused", "sqlstate": LOCK_NOT_AVAILABLE}


def request(whose: str, *numbers: int, now: float = 0) -> Request:
    """Make a request of one user, an item a number."""
    made = Request(whose, now + rules.DEADLINE_S)
    for nr in numbers or (0,):
        made.add({"whose": whose, "nr": nr}, Future())
    return made


def give(answers: Answers) -> None:
    """Answer, as the gatherer does, but let nobody be answered twice."""
    for future, answer in answers:
        if isinstance(answer, Exception):
            future.set_exception(answer)
        elif not future.done():  # too late
            future.set_result(answer)


def done(call: Call) -> list[JsonObject]:
    """Answer a call that does all."""
    return [{"outcome": DONE, "nr": item["nr"]} for item in call.items]


def whose_of(call: Call) -> list[str]:
    """Name those of whom a call has items."""
    return [one.whose for one in call.requests]


class Server:
    """Answers calls by whose items they have."""

    def __init__(self) -> None:
        self.frees_at: dict[str, float] = {}
        """When the row of a user is free again."""

    def answers(self, call: Call, now: float) -> list[JsonObject] | Exception:
        """Answer a call that ends now."""
        kinds = {item["whose"].split()[0] for item in call.items}
        if "unreadable" in kinds:
            return StoreRefused("22P02")
        if "slow" in kinds:
            return TIMED_OUT
        return [self._answer(item, now) for item in call.items]

    def _answer(self, item: JsonObject, now: float) -> JsonObject:
        if item["whose"].startswith("refused"):
            return REFUSED
        if self.frees_at.get(item["whose"], 0) > now:
            return SKIPPED
        return {"outcome": DONE, "nr": item["nr"]}


class Traffic(RuleBasedStateMachine):
    """Asks and answers in any order, and looks at each call as it leaves."""

    @initialize(at_once=st.sampled_from([1, 2, 3, 8]))
    def begin(self, at_once: int) -> None:
        self.now = 0.0
        self.grouping = Grouping(at_once)
        self.lists_max, self.alone_max = max(1, (at_once + 1) // 2), max(1, at_once // 2)
        self.server = Server()
        self.numbers = count()
        self.under_way: list[Call] = []
        self.asked: list[tuple[str, int, Future[JsonObject]]] = []
        self.order: defaultdict[str, list[int]] = defaultdict(list)
        self.first_skip: dict[Future[Any], float] = {}
        self.skips: defaultdict[Future[Any], int] = defaultdict(int)
        self.may_be_away: set[Future[JsonObject]] = set()

    @rule(of=st.dictionaries(st.sampled_from(WHOSE), st.integers(1, 30), min_size=1, max_size=6))
    def ask(self, of: dict[str, int]) -> None:
        requests = [
            request(whose, *(next(self.numbers) for _ in range(many)), now=self.now) for whose, many in of.items()
        ]
        for one in requests:
            for item, future in zip(one.items, one.futures, strict=True):
                self.asked.append((one.whose, item["nr"], future))
                future.add_done_callback(partial(self.note_done, one.whose))
        assert self.grouping.add(requests)

    def note_done(self, whose: str, future: "Future[JsonObject]") -> None:
        """Remember in which order a user's items were done."""
        if not future.exception() and future.result()["outcome"] == DONE:
            self.order[whose].append(future.result()["nr"])

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.03, 0.5]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        give(self.grouping.expired(self.now))

    @rule(nr=st.integers(0, 2), seconds=st.sampled_from([0.01, 0.2, 3]))
    def hold(self, nr: int, seconds: float) -> None:
        self.server.frees_at[f"held {nr}"] = self.now + seconds

    @rule(nr=st.integers(0, 100))
    def answer(self, nr: int) -> None:
        if self.under_way:
            self.end(self.under_way[nr % len(self.under_way)])

    @rule(nr=st.integers(0, 100))
    def go_away(self, nr: int) -> None:
        if self.under_way:
            call = self.under_way.pop(nr % len(self.under_way))
            self.may_be_away.update(future for one in call.requests for future in one.futures)
            give(self.grouping.failed(call, StoreAway("away"), self.now))

    def end(self, call: Call) -> None:
        """Let a call end with what the server answers."""
        self.under_way.remove(call)
        answers = self.server.answers(call, self.now)
        if isinstance(answers, Exception):
            give(self.grouping.failed(call, answers, self.now))
            return
        asked = [future for one in call.requests for future in one.futures[: len(one.piece)]]
        for future, answer in zip(asked, answers, strict=True):
            if answer is SKIPPED:
                self.skips[future] += 1
                self.first_skip.setdefault(future, self.now)
        give(self.grouping.answered(call, answers, self.now))

    @invariant()
    def all_that_is_ready_leaves_by_the_rules(self) -> None:
        while call := self.grouping.next_call(self.now):
            lists = [one for one in self.under_way if not one.is_alone]
            assert not set(whose_of(call)) & {whose for one in self.under_way for whose in whose_of(one)}
            assert len(set(whose_of(call))) == len(call.requests)
            assert len(call.items) <= rules.ITEMS_MAX
            if call.is_alone:
                assert len(call.requests) == 1
                assert len(self.under_way) - len(lists) < self.alone_max
            else:
                assert len(lists) < self.lists_max
                assert all(self.now >= one.began + rules.LIST_OLD_S for one in lists)
            if call.waits:
                futures = call.requests[0].futures
                assert any(
                    self.skips[f] >= rules.SKIPS_MAX or self.now - self.first_skip[f] >= rules.SKIPPED_MAX_S
                    for f in futures
                )
            self.under_way.append(call)
        looks_at = self.grouping.look_at(self.now)
        assert looks_at is None or looks_at > self.now

    def teardown(self) -> None:
        """Answer all that is left; each then has the answer of its kind, and no other's."""
        if not hasattr(self, "grouping"):
            return
        while self.under_way:
            self.now += 0.1
            self.end(self.under_way[0])
            self.all_that_is_ready_leaves_by_the_rules()
        assert self.grouping.look_at(self.now) is None
        for whose, nr, future in self.asked:
            assert future.done(), "somebody was never answered"
            self.is_its_own(whose, nr, future)
        assert all(order == sorted(order) for order in self.order.values())

    def is_its_own(self, whose: str, nr: int, future: "Future[JsonObject]") -> None:
        """See that an answer is one that this item may get."""
        error, kind = future.exception(), whose.split(maxsplit=1)[0]
        if isinstance(error, StoreAway):
            assert future in self.may_be_away
        elif error is not None and not (isinstance(error, StoreUnavailable) and error.sqlstate is None):
            assert kind == {StoreRefused: "unreadable", StoreUnavailable: "slow"}[type(error)]
        elif error is None:
            answer = future.result()
            assert answer in {"free": [self.done(nr)], "held": [self.done(nr), SKIPPED], "refused": [REFUSED]}[kind]

    def done(self, nr: int) -> JsonObject:
        """Return the answer of an item that is done."""
        return {"outcome": DONE, "nr": nr}


TestTraffic = Traffic.TestCase
TestTraffic.settings = hypothesis_settings(max_examples=30, stateful_step_count=30)


class Sent:
    """A grouping, and what it lets go."""

    def __init__(self, at_once: int = 4) -> None:
        self.grouping = Grouping(at_once)

    def asks(self, *requests: Request, now: float = 0) -> list[Call]:
        """Ask, and return what leaves at once."""
        assert self.grouping.add(requests)
        return self.ready(now)

    def ready(self, now: float) -> list[Call]:
        """Return what leaves now."""
        return list(iter(partial(self.grouping.next_call, now), None))

    def answer(self, call: Call, *answers: JsonObject, now: float = 0) -> list[Call]:
        """Answer a call, by default as done; return what leaves then."""
        give(self.grouping.answered(call, answers or done(call), now))
        return self.ready(now)

    def fail(self, call: Call, error: Exception, now: float = 0) -> list[Call]:
        """Let a call fail as a whole; return what leaves then."""
        give(self.grouping.failed(call, error, now))
        return self.ready(now)


def users(count: int) -> list[Request]:
    return [request(f"user {nr}") for nr in range(count)]


def test_alone_an_item_leaves_at_once_and_the_next_list_takes_what_has_gathered_up_to_a_bound() -> None:
    sent = Sent()
    [first] = sent.asks(request("alice"))
    assert sent.asks(*users(rules.ITEMS_MAX + 6)) == []
    [second] = sent.answer(first)
    assert len(second.items) == rules.ITEMS_MAX
    [third] = sent.answer(second)
    assert len(third.items) == 6


def test_of_a_large_request_a_piece_goes_in_each_list_and_others_go_beside_it() -> None:
    sent, large = Sent(), request("alice", *range(3 * PIECE_MAX))
    asked = [*large.futures]
    [first] = sent.asks(large)
    assert len(first.items) == PIECE_MAX
    assert sent.asks(request("alice", 999), *users(2)) == []
    [second] = sent.answer(first)
    assert whose_of(second) == ["alice", "user 0", "user 1"]
    [third] = sent.answer(second)
    [later] = sent.answer(third)
    assert [item["nr"] for item in later.items] == [999]
    assert [future.result()["nr"] for future in asked] == [*range(3 * PIECE_MAX)]


@pytest.mark.parametrize(
    ("stop", "outcome"), [({"outcome": "full"}, "full"), (SKIPPED, "skipped"), (LOCK_TIMED_OUT, "skipped")]
)
def test_what_follows_an_item_that_was_not_done_is_not_done_either(stop: JsonObject, outcome: str) -> None:
    sent, large = Sent(), request("alice", *range(3 * PIECE_MAX))
    asked = [*large.futures]
    [call] = sent.asks(large)
    large.waits = True
    answers = [{"outcome": DONE, "nr": nr} for nr in range(PIECE_MAX - 1)] + [stop]
    give(sent.grouping.answered(call, answers, 0))
    assert [future.result()["outcome"] for future in asked[PIECE_MAX:]] == [outcome] * (2 * PIECE_MAX)
    assert asked[PIECE_MAX - 1].result() == stop
    assert sent.ready(0) == []


def test_a_second_list_leaves_when_the_first_is_old_and_lists_take_half_of_the_places() -> None:
    sent = Sent(at_once=4)
    sent.asks(request("alice"))
    assert sent.asks(request("bob"), now=0.019) == []
    assert sent.grouping.look_at(0.019) == rules.LIST_OLD_S
    [second] = sent.ready(rules.LIST_OLD_S)
    assert sent.asks(request("carol"), now=9) == []
    [third] = sent.answer(second, now=9)
    assert whose_of(third) == ["carol"]


def test_of_one_user_one_request_is_under_way_and_later_ones_never_overtake() -> None:
    sent = Sent()
    [first] = sent.asks(request("alice", 1))
    assert sent.asks(request("alice", 2), request("alice", 3), now=9) == []
    [bobs] = sent.asks(request("bob"), now=9)
    assert whose_of(bobs) == ["bob"]
    [again] = sent.answer(first, SKIPPED, now=10)
    assert [item["nr"] for item in again.items] == [1]


def test_who_is_skipped_goes_into_the_next_lists_then_alone_and_waits() -> None:
    sent = Sent()
    [call] = sent.asks(request("alice", 1, 2))
    for _ in range(rules.SKIPS_MAX - 1):
        [call] = sent.answer(call, SKIPPED, SKIPPED)
        assert not call.is_alone
    [call] = sent.answer(call, SKIPPED, LOCK_TIMED_OUT)
    assert call.is_alone
    assert call.waits
    assert [item["nr"] for item in call.items] == [1, 2]
    [bobs] = sent.asks(request("bob"))
    assert not bobs.is_alone


def test_who_is_skipped_for_long_goes_alone_after_fewer_skips() -> None:
    sent = Sent()
    [call] = sent.asks(request("alice"))
    [call] = sent.answer(call, SKIPPED, now=1)
    [call] = sent.answer(call, SKIPPED, now=1 + rules.SKIPPED_MAX_S)
    assert call.waits


def skipped_until_it_waits(sent: Sent, call: Call, now: float = 0) -> list[Call]:
    for _ in range(rules.SKIPS_MAX - 1):
        [call] = sent.answer(call, SKIPPED, now=now)
    return sent.answer(call, SKIPPED, now=now)


def test_what_of_a_users_items_is_skipped_is_asked_again_alone() -> None:
    sent = Sent()
    one = request("alice", 1, 2)
    done_first, held = one.futures
    [call] = sent.asks(one)
    [again] = sent.answer(call, {"outcome": DONE}, SKIPPED)
    assert done_first.result() == {"outcome": DONE}
    assert [item["nr"] for item in again.items] == [2]
    assert not held.done()


def test_after_a_row_was_waited_for_in_vain_nobody_waits_for_it_for_a_while() -> None:
    sent = Sent()
    first, second = request("alice"), request("alice")
    futures = [*first.futures, *second.futures]
    [call] = sent.asks(first)
    [call] = skipped_until_it_waits(sent, call)
    assert sent.answer(call, LOCK_TIMED_OUT) == []
    [call] = sent.asks(second, now=1)
    assert skipped_until_it_waits(sent, call, now=1) == []
    assert [future.result() for future in futures] == [LOCK_TIMED_OUT, SKIPPED]
    [call] = sent.asks(request("alice"), now=rules.HELD_REST_S)
    [call] = skipped_until_it_waits(sent, call, now=rules.HELD_REST_S)
    assert call.waits


def test_whose_item_was_refused_goes_alone_for_a_while_and_nobody_else() -> None:
    sent = Sent()
    [call] = sent.asks(request("alice"), request("bob"))
    sent.answer(call, REFUSED, {"outcome": DONE})
    bobs, alices = sent.asks(request("alice"), request("bob"), now=1)
    assert (whose_of(alices), alices.is_alone, alices.waits) == (["alice"], True, False)
    assert (whose_of(bobs), bobs.is_alone) == (["bob"], False)
    sent.answer(alices, now=1)
    sent.answer(bobs, now=1)
    [call] = sent.asks(request("alice", now=99), now=99)
    assert call.is_alone is False


@pytest.mark.parametrize("error", [TIMED_OUT, StoreRefused("22P05"), TypeError("not JSON")])
def test_a_list_that_may_have_failed_for_one_item_is_halved_then_each_goes_alone(error: Exception) -> None:
    sent = Sent(at_once=2)
    requests = users(8)
    futures = [one.futures[0] for one in requests]
    todo, sizes = sent.asks(*requests), []
    while todo:
        call = todo.pop(0)
        sizes.append(len(call.items))
        is_bad = "user 5" in whose_of(call)
        todo += sent.fail(call, error) if is_bad else sent.answer(call)
    assert sizes == [8, 4, 4, 1, 1, 1, 1]
    assert [nr for nr, future in enumerate(futures) if future.exception()] == [5]
    [call] = sent.asks(request("user 5"))
    assert call.is_alone, "it would take the next list with it"


def test_an_outage_is_everybodys_and_nobodys_fault() -> None:
    sent = Sent()
    requests = users(2)
    futures = [one.futures[0] for one in requests]
    assert sent.fail(sent.asks(*requests)[0], away := StoreAway("away")) == []
    assert [future.exception() for future in futures] == [away, away]
    [call] = sent.asks(*users(2))
    assert len(call.items) == 2


def test_who_was_given_up_before_it_went_alone_may_ask_again() -> None:
    sent = Sent(at_once=2)
    [call] = sent.asks(request("alice"), request("bob"))
    sent.answer(call, REFUSED, REFUSED)
    [alices] = sent.asks(request("alice"), request("bob"), now=1)
    give(sent.grouping.abandoned(StoreUnavailable("no thread")))
    sent.answer(alices, now=1)
    [call] = sent.asks(request("bob"), now=2)
    assert whose_of(call) == ["bob"]


def test_who_is_cancelled_or_too_late_is_not_sent() -> None:
    sent = Sent()
    [call] = sent.asks(request("alice"))
    cancelled, late = request("bob"), request("carol")
    assert cancelled.futures[0].cancel()
    sent.asks(cancelled, late)
    now = rules.DEADLINE_S
    give([one for one in sent.grouping.expired(now) if one[0] is not cancelled.futures[0]])
    assert isinstance(late.futures[0].exception(), StoreUnavailable)
    assert sent.answer(call, now=now) == []
    assert sent.grouping.look_at(now) is None


def test_too_many_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "REQUESTS_MAX", 2)
    grouping = Grouping(4)
    assert grouping.add(users(2))
    assert not grouping.add(users(1))


def test_of_whom_a_list_took_too_long_is_remembered_also_when_all_of_it_have_given_up() -> None:
    """Each time that a slow item came again it made a list of others late: it had given up before it went alone."""
    sent, (first, *others) = Sent(), users(5)
    [under_way] = sent.asks(first)
    sent.asks(*others)
    [call] = sent.answer(under_way)
    assert all(one.futures[0].cancel() for one in others)
    [half] = sent.fail(call, TIMED_OUT, now=5)
    [other_half] = sent.answer(half, now=5)
    assert sent.fail(other_half, TIMED_OUT, now=10) == []
    again = sent.asks(*(request(whose) for whose in [*whose_of(half), *whose_of(other_half)]), now=11)
    assert [(whose_of(one), one.is_alone) for one in again] == [
        (whose_of(half), False),
        *(([whose], True) for whose in whose_of(other_half)),
    ]
