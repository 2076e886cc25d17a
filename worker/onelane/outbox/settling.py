"""What to do now about a reply of which nobody knows whether it arrived: ask, wait, send again, or give up.

A request ends at its own deadline. One whose process died may have been read by the provider until then, and the
provider may still be at work on it for a while: only after that does it mean anything that the provider does not have
the reply. Whatever shows that it is there counts at once.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from onelane.channels.sender import OnUnknown
from onelane.channels.verdicts import Outcome, Verdict, Word
from onelane.outbox.limits import backoff_s
from onelane.outbox.reply import Deed, Fate, Waiting, never

ENDS_SLACK_S: Final = 5.0
"""After its deadline a request has ended, also of a holder whose mark and whose request were apart."""
LOOK_EVERY_S: Final = 5.0
LOOKS_S: Final = 2 * LOOK_EVERY_S
"""For so long after an absence would count, a provider that cannot be asked just now is asked again."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for a channel."""

    on_unknown: OnUnknown
    """As the channel is configured."""
    own: OnUnknown
    """As its provider needs it: RESEND where a repetition is harmless, ASK where it can tell us."""
    absent_after_s: float
    deadline_s: float
    hold_s: float
    give_up_s: float


class Act(StrEnum):
    """What to do now."""

    ASK = "ask"
    WAIT = "wait"
    SETTLE = "settle"


class Step(NamedTuple):
    """What to do now, and how long to wait or what to settle."""

    act: Act
    wait_s: float = 0.0
    fate: Fate | None = None


def first_step(reply: Waiting, rules: Rules, now: datetime, *, can_ask: bool) -> Step:
    """Decide what to do about an unknown reply; with `can_ask` there is a look-up for it."""
    if rules.on_unknown is OnUnknown.RESEND and not (reply.resent and rules.own is not OnUnknown.RESEND):
        return _resend(reply, rules, now)
    if rules.on_unknown is OnUnknown.ASK and can_ask:
        return Step(Act.ASK)
    return _give_up_at(_told_until(reply, rules), now)


def after_look_up(reply: Waiting, rules: Rules, verdict: Verdict, asked_at: datetime, wait_s: float | None) -> Step:
    """Decide what a look-up means that began at `asked_at`; `wait_s` is what the provider asks to wait, if it does."""
    absence_at = absence_counts_at(reply, rules)
    match verdict.outcome:
        case Outcome.ACCEPTED | Outcome.NEVER:
            return Step(Act.SETTLE, fate=Fate.of(verdict))
        case Outcome.NOT_NOW if asked_at >= absence_at:
            return Step(Act.SETTLE, fate=Fate(Deed.ABSENT, Word.ABSENT))
    ends_at = max(_since(reply) + timedelta(seconds=rules.hold_s), absence_at + timedelta(seconds=LOOKS_S))
    if asked_at >= ends_at:
        return Step(Act.SETTLE, fate=Fate(Deed.GIVE_UP, Word.UNCLEAR))
    until_absence_s = (absence_at - asked_at).total_seconds()
    next_s = min(LOOK_EVERY_S, until_absence_s) if until_absence_s > 0 else LOOK_EVERY_S
    return Step(Act.WAIT, wait_s=min(max(next_s, wait_s or 0.0), max(next_s, (ends_at - asked_at).total_seconds())))


def ended_at(reply: Waiting, rules: Rules) -> datetime:
    """Return when the last request was over, at the latest."""
    if reply.ends_known:
        return _since(reply)
    return reply.sending_at + timedelta(seconds=rules.deadline_s + ENDS_SLACK_S)


def absence_counts_at(reply: Waiting, rules: Rules) -> datetime:
    """Return from when on it means something that the provider does not have the reply."""
    if reply.ends_known:
        return _since(reply) + timedelta(seconds=rules.absent_after_s)
    return reply.sending_at + timedelta(seconds=rules.deadline_s + max(ENDS_SLACK_S, rules.absent_after_s))


def _resend(reply: Waiting, rules: Rules, now: datetime) -> Step:
    """Send again after a while; where a repetition is not harmless, once."""
    is_harmless = rules.own is OnUnknown.RESEND
    first_at = reply.first_sent_at or reply.sending_at
    if is_harmless and reply.counted > 1 and now >= first_at + timedelta(seconds=rules.give_up_s):
        return Step(Act.SETTLE, fate=never(Word.GAVE_UP))
    at = max(ended_at(reply, rules), _since(reply) + timedelta(seconds=backoff_s(reply.counted)))
    if now < at:
        return Step(Act.WAIT, (at - now).total_seconds())
    return Step(Act.SETTLE, fate=Fate(Deed.RESEND))


def _told_until(reply: Waiting, rules: Rules) -> datetime:
    """Return how long somebody may still say what became of it: a provider without statuses never does."""
    if rules.own is not OnUnknown.ASK:
        return ended_at(reply, rules)
    return max(ended_at(reply, rules), _since(reply) + timedelta(seconds=rules.hold_s))


def _give_up_at(at: datetime, now: datetime) -> Step:
    if now < at:
        return Step(Act.WAIT, (at - now).total_seconds())
    return Step(Act.SETTLE, fate=Fate(Deed.GIVE_UP, Word.UNCLEAR))


def _since(reply: Waiting) -> datetime:
    return reply.unknown_since or reply.sending_at
