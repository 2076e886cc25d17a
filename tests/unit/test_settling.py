"""What is done about a reply of which nobody knows whether it arrived: asked, waited for, sent again, or given up."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from onelane.channels.sender import OnUnknown
from onelane.channels.verdicts import Outcome, Verdict, Word, absent, accepted, unknown
from onelane.outbox.reply import Deed, Fate, Waiting
from onelane.outbox.settling import Act, Rules, Step, absence_counts_at, after_look_up, first_step
from tests.shipping import waiting

SENT = datetime(2026, 1, 1, tzinfo=UTC)
ASK, RESEND, LEAVE = OnUnknown.ASK, OnUnknown.RESEND, OnUnknown.LEAVE
GIVEN_UP = Step(Act.SETTLE, fate=Fate(Deed.GIVE_UP, Word.UNCLEAR))


def at(seconds: float) -> datetime:
    return SENT + timedelta(seconds=seconds)


def rules(on_unknown: OnUnknown, own: OnUnknown | None = None) -> Rules:
    return Rules(on_unknown, own or on_unknown, absent_after_s=10, deadline_s=25, hold_s=15, give_up_s=3_600)


def lost(unknown_s: float = 0, **changes: Any) -> Waiting:
    """A reply whose request began at SENT, and whose outcome is unknown since then."""
    times = {"sending_at": SENT, "first_sent_at": SENT, "unknown_since": at(unknown_s), "now": at(unknown_s)}
    return waiting(**{**times, "ends_known": True, **changes})


def decided(reply: Waiting, how: Rules, seconds: float, *, can_ask: bool = False) -> Step:
    return first_step(reply, how, at(seconds), can_ask=can_ask)


def test_an_absence_counts_when_the_request_and_what_the_provider_does_with_it_are_over() -> None:
    assert absence_counts_at(lost(15), rules(ASK)) == at(25)
    assert absence_counts_at(lost(15, ends_known=False), rules(ASK)) == at(25 + 10)
    assert absence_counts_at(lost(ends_known=False), Rules(ASK, ASK, 0, 25, 15, 1)) == at(25 + 5)


def test_who_can_be_asked_is_asked_at_once_and_however_late_it_is() -> None:
    assert decided(lost(), rules(ASK), 0, can_ask=True).act is Act.ASK
    assert decided(lost(), rules(ASK), 10_000, can_ask=True).act is Act.ASK


@pytest.mark.parametrize("verdict", [accepted("p1"), Verdict(Outcome.NEVER, Word.UNREACHABLE, "30003", "p1")])
def test_what_is_there_counts_at_once(verdict: Verdict) -> None:
    step = after_look_up(lost(), rules(ASK), verdict, at(0), None)
    assert step == Step(Act.SETTLE, fate=Fate.of(verdict))


@pytest.mark.parametrize(("asked_s", "wait_s"), [(0, 5), (4, 5), (7, 3), (9.5, 0.5)])
def test_an_absence_is_waited_for_until_it_counts(asked_s: float, wait_s: float) -> None:
    assert after_look_up(lost(), rules(ASK), absent(), at(asked_s), None) == Step(Act.WAIT, wait_s)


def test_an_absence_that_counts_sends_it_again() -> None:
    step = after_look_up(lost(), rules(ASK), absent(), at(10), None)
    assert step == Step(Act.SETTLE, fate=Fate(Deed.ABSENT, Word.ABSENT))


def test_a_look_up_that_began_before_an_absence_counts_proves_none_however_long_it_took() -> None:
    assert after_look_up(lost(ends_known=False), rules(ASK), absent(), at(34.9), None).act is Act.WAIT


@pytest.mark.parametrize("asked_s", [0, 10, 19])
def test_who_cannot_answer_is_asked_again_until_the_hold_is_over(asked_s: float) -> None:
    step = after_look_up(lost(), rules(ASK), unknown("500"), at(asked_s), None)
    assert step.act is Act.WAIT
    assert 0 < step.wait_s <= 5
    assert after_look_up(lost(), rules(ASK), unknown("500"), at(20), None) == GIVEN_UP


def test_the_hold_is_not_over_before_an_absence_could_count() -> None:
    reply = lost(0, ends_known=False)
    assert after_look_up(reply, rules(ASK), unknown(), at(36), None).act is Act.WAIT
    assert after_look_up(reply, rules(ASK), unknown(), at(45), None) == GIVEN_UP


def test_a_limit_of_look_ups_is_waited_for_within_the_hold() -> None:
    assert after_look_up(lost(), rules(ASK), unknown("429"), at(2), 9).wait_s == 9
    assert after_look_up(lost(), rules(ASK), unknown("429"), at(2), 900).wait_s == 18


def test_who_only_calls_back_is_waited_for_and_then_it_is_given_up() -> None:
    assert decided(lost(), rules(ASK), 5) == Step(Act.WAIT, 10)
    assert decided(lost(), rules(ASK), 15) == GIVEN_UP
    assert decided(lost(), rules(LEAVE, ASK), 14).act is Act.WAIT


def test_whom_nobody_can_ask_is_given_up_as_soon_as_the_request_is_over() -> None:
    assert decided(lost(), rules(LEAVE), 0) == GIVEN_UP
    assert decided(lost(10, ends_known=False), rules(LEAVE), 20) == Step(Act.WAIT, 10)
    assert decided(lost(10, ends_known=False), rules(LEAVE), 30) == GIVEN_UP


def test_where_a_repetition_is_harmless_it_is_sent_again_and_again_at_growing_pauses() -> None:
    assert decided(lost(), rules(RESEND), 0) == Step(Act.WAIT, 1)
    assert decided(lost(), rules(RESEND), 1) == Step(Act.SETTLE, fate=Fate(Deed.RESEND))
    assert decided(lost(counted=5, resent=True), rules(RESEND), 15) == Step(Act.WAIT, 1)
    assert decided(lost(counted=5, resent=True), rules(RESEND), 16).fate == Fate(Deed.RESEND)


def test_nothing_is_sent_again_while_its_request_may_be_on_its_way() -> None:
    assert decided(lost(2, ends_known=False), rules(RESEND), 20) == Step(Act.WAIT, 10)


def test_a_harmless_repetition_ends_when_it_has_been_tried_for_long_enough() -> None:
    step = decided(lost(3_590, counted=12), rules(RESEND), 3_600)
    assert step == Step(Act.SETTLE, fate=Fate(Deed.NEVER, Word.GAVE_UP))
    first = lost(3_590, sending_at=at(3_580), counted=1)  # its mark was taken back until then
    assert decided(first, rules(RESEND), 3_600).fate == Fate(Deed.RESEND)


def test_where_a_repetition_is_not_harmless_a_machine_sends_again_once() -> None:
    assert decided(lost(), rules(RESEND, LEAVE), 1).fate == Fate(Deed.RESEND)
    assert decided(lost(resent=True), rules(RESEND, LEAVE), 1) == GIVEN_UP
