"""One lease of a user's replies: what is sent, what becomes of it, and how the lane is left."""

import asyncio
from typing import Any

import httpx2
import pytest

from onelane.channels.sender import OnUnknown
from onelane.channels.verdicts import Unsendable, Word
from onelane.errors import StoreRefused, StoreUnavailable
from onelane.outbox.circuits import Circuits
from onelane.outbox.reply import BeginOutcome, Deed, Fate
from tests.conftest import LogLines, eventually
from tests.shipping import KeptProvider, KeptRecords, PlainSender, Trip, ago, waiting


def answering(status: int, **body: Any) -> PlainSender:
    async def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, json=body)

    return PlainSender(answer)


def test_replies_are_sent_in_order_each_marked_with_the_one_before_settled() -> None:
    replies = [waiting(text=f"text {nr}") for nr in range(3)]
    trip = Trip(*replies).run()
    assert trip.sender.taken == [f'{{"text": "text {nr}"}}' for nr in range(3)]
    assert [fate.provider_id for fate in trip.records.fates] == ["p1", "p2", "p3"]
    assert trip.lanes.done == [reply.id for reply in replies]
    assert trip.lanes.parked == []


def test_a_lane_has_its_quantum_and_goes_to_the_end_of_the_order() -> None:
    trip = Trip(*(waiting() for _ in range(5)), quantum_turns=2).run()
    assert trip.records.went_on == [True, False]
    assert trip.lanes.finished == [{"has_more": True}]


def test_the_next_reply_waits_for_one_that_may_have_arrived() -> None:
    trip = Trip(waiting(), waiting(), sender=answering(500)).run()
    assert trip.fate.deed is Deed.UNKNOWN
    assert len(trip.lanes.parked) == 1
    assert trip.lanes.done == []


def test_nothing_is_sent_while_the_process_stops_and_the_mark_is_taken_back() -> None:
    trip = Trip(waiting())
    trip.stopping.set()
    trip.run()
    assert trip.sender.taken == []
    assert trip.fate == Fate(Deed.NOT_NOW, wait_s=0, counts=False)
    assert trip.lanes.parked == [0]


def test_nothing_is_sent_under_a_lease_that_is_lost() -> None:
    trip = Trip(waiting())
    trip.holding.cancel()
    assert trip.run().sender.taken == []
    assert trip.fate.counts is False


def test_nothing_is_sent_under_a_mark_that_is_not_fresh() -> None:
    """Others count from the mark when the request is over: of a frozen process it would not be."""
    trip = Trip(waiting(sending_at=ago(5)), quantum_turns=1).run()
    assert trip.sender.taken == []
    assert trip.fate == Fate(Deed.NOT_NOW, wait_s=0, counts=False)


def test_an_answer_is_settled_although_the_lease_was_lost_meanwhile() -> None:
    trip = Trip(waiting(), waiting())
    take = trip.sender.take

    async def lose_lease(request: httpx2.Request) -> httpx2.Response:
        trip.holding.cancel()
        return await take(request)

    trip.sender.handler = lose_lease
    trip.run()
    assert trip.fate.deed is Deed.ACCEPTED
    assert trip.records.went_on == [False]


@pytest.mark.parametrize("last_s", [None, 90_000])
def test_after_the_reply_window_nothing_is_requested(last_s: float | None) -> None:
    trip = Trip(waiting(last_written_at=last_s and ago(last_s)))
    trip.sender.window = 86_400
    trip.run()
    assert trip.sender.taken == []
    assert trip.fate == Fate(Deed.NEVER, Word.WINDOW_CLOSED)
    assert [word for _, word in trip.lanes.buried] == ["window_closed"]
    eventually(lambda: trip.told)


@pytest.mark.parametrize("changes", [{}, {"last_written_at": ago(90_000), "parts": {"template": {"name": "x"}}}])
def test_within_the_reply_window_and_by_a_template_it_is_sent(changes: Any) -> None:
    trip = Trip(waiting(**changes))
    trip.sender.window = 86_400
    assert trip.run().fate.deed is Deed.ACCEPTED


@pytest.mark.parametrize(
    ("refusal", "word"),
    [(Unsendable(Word.NO_ROUTE, "nowhere"), Word.NO_ROUTE), (KeyError("an adapter's fault"), Word.BAD_CONTENT)],
)
def test_what_cannot_be_written_as_a_request_has_failed(refusal: Exception, word: Word) -> None:
    trip = Trip(waiting(), waiting())
    trip.sender.refusal = refusal
    trip.run()
    assert trip.records.fates == [Fate(Deed.NEVER, word)] * 2


def test_a_refusal_for_now_parks_the_lane_as_long_as_postgres_says() -> None:
    records = KeptRecords(waiting(), waiting(), wait_ms=7_000)
    trip = Trip(sender=answering(429, error="ConnectError"), records=records).run()
    assert trip.fate.deed is Deed.NOT_NOW
    assert 7 <= trip.lanes.parked[0] <= 7.7


@pytest.mark.parametrize("outcome", [BeginOutcome.WAIT, BeginOutcome.HELD])
def test_a_lane_that_waits_or_whose_channel_is_held_is_parked_a_little_longer(outcome: BeginOutcome) -> None:
    trip = Trip(records=KeptRecords(waiting(), outcome=outcome, wait_ms=2_000)).run()
    assert 2 <= trip.lanes.parked[0] <= 2.2
    assert trip.sender.taken == []


def test_a_channel_that_is_not_configured_waits_for_it_and_one_without_a_sender_withholds() -> None:
    trip = Trip(waiting(channel="gone")).run()
    assert trip.fate == Fate(Deed.NOT_NOW, wait_s=60, counts=False)
    assert trip.lanes.parked == [60]
    trip = Trip(waiting())
    trip.providers["demo"] = KeptProvider(None)
    assert trip.run().fate == Fate(Deed.WITHHOLD, Word.NO_ROUTE)


def test_with_postgres_away_or_refusing_the_lane_waits_longer_each_time() -> None:
    for failure in (StoreUnavailable("away"), StoreRefused("22023")):
        trip = Trip(waiting())
        trip.records.failure = failure
        trip.run()
        assert trip.lanes.parked[0] >= 1
    assert trip.sender.taken == []


def unsure(**changes: Any) -> KeptRecords:
    reply = waiting(**{"unknown_since": ago(1), "ends_known": True, "sending_at": ago(2), **changes})
    return KeptRecords(reply, outcome=BeginOutcome.UNKNOWN)


def asked(found: str | None, status: int = 200) -> PlainSender:
    async def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, json={"found": found})

    return PlainSender(answer, OnUnknown.ASK)


def test_an_unknown_reply_is_asked_for_and_settled_by_the_providers_word() -> None:
    trip = Trip(sender=asked("p7"), records=unsure()).run()
    assert (trip.fate.deed, trip.fate.provider_id) == (Deed.ACCEPTED, "p7")


def test_an_unknown_reply_that_is_absent_is_sent_again_when_that_counts() -> None:
    assert Trip(sender=asked(None), records=unsure(unknown_since=ago(11))).run().fate.deed is Deed.ABSENT
    early = Trip(sender=asked(None), records=unsure()).run()
    assert early.records.fates == []
    assert 4 < early.lanes.parked[0] < 6


def test_a_provider_that_cannot_be_asked_now_is_asked_later() -> None:
    trip = Trip(sender=asked(None, status=429), records=unsure()).run()
    assert trip.records.fates == []
    assert len(trip.lanes.parked) == 1


def test_a_channels_own_rule_for_unknown_replies_counts() -> None:
    trip = Trip(sender=asked("p7"), records=unsure(unknown_since=ago(16)), channel={"on_unknown": "leave"}).run()
    assert trip.fate.deed is Deed.GIVE_UP


def test_a_broken_channel_is_logged_once_and_so_is_its_mending(log_lines: LogLines) -> None:
    circuits = Circuits()
    for deed in (Deed.BROKEN, Deed.BROKEN, Deed.ACCEPTED, Deed.ACCEPTED):
        circuits.note("demo", Fate(deed, Word.DENIED, "401"), "pending")
    assert [line["event"] for line in log_lines] == ["channel_broken", "channel_mended"]


def test_a_request_that_takes_too_long_is_unknown() -> None:
    async def hang(_request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(60)
        raise AssertionError

    trip = Trip(waiting(), sender=PlainSender(hang), send_deadline_s=1).run()
    assert (trip.fate.deed, trip.fate.code) == (Deed.UNKNOWN, "TimeoutError")
