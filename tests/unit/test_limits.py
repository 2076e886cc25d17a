"""How long replies wait: as a provider asks, within bounds, else longer after each attempt."""

import pytest

from onelane.channels.verdicts import Outcome, Scope, Verdict, Word
from onelane.outbox import limits
from onelane.outbox.reply import Deed, Fate
from tests.shipping import ago, waiting


def not_now(**changes: object) -> Verdict:
    return Verdict(Outcome.NOT_NOW, Word.AWAY, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("asked_s", "wait_s"), [(7, 7), (0, 0.1), (86_400, 3_600)])
def test_a_provider_is_asked_again_when_it_says_within_bounds(asked_s: float, wait_s: float) -> None:
    assert limits.wait_s(not_now(wait_s=asked_s), 3) == wait_s


def test_a_conversation_that_moved_is_followed_at_once() -> None:
    assert limits.wait_s(not_now(wait_s=0, route={"chat_id": 5}, counts=False), 1) == 0


def test_errors_are_waited_for_twice_as_long_each_time_up_to_a_bound_and_never_in_step() -> None:
    waits = [limits.wait_s(not_now(), attempt) for attempt in (1, 2, 3, 100)]
    for wait_s, least_s in zip(waits, (1, 2, 4, 300), strict=True):
        assert least_s <= wait_s <= least_s + min(5, least_s / 10)
    assert len({limits.wait_s(not_now(), 5) for _ in range(10)}) > 1


def test_a_channel_is_never_held_for_long_because_one_reply_was_tried_often() -> None:
    assert limits.wait_s(not_now(scope=Scope.CHANNEL), 50) <= 33


def test_what_was_tried_for_long_enough_has_failed_but_not_at_its_first_attempt() -> None:
    first = waiting(counted=1, first_sent_at=ago(4_000))
    assert limits.fate_of(first, not_now(), 3_600).deed is Deed.NOT_NOW
    assert limits.fate_of(waiting(counted=2, first_sent_at=ago(3_000)), not_now(), 3_600).deed is Deed.NOT_NOW
    again = waiting(counted=2, first_sent_at=ago(4_000))
    assert limits.fate_of(again, not_now(), 3_600) == Fate(Deed.NEVER, Word.GAVE_UP)
    assert limits.fate_of(again, not_now(counts=False), 3_600).deed is Deed.NOT_NOW
