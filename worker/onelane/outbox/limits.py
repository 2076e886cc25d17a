"""How long a reply, a lane or a channel waits before the next request."""

import random
from typing import Final

from onelane.channels.verdicts import Outcome, Scope, Verdict, Word
from onelane.outbox.reply import Fate, Waiting, never

BACKOFF_S: Final = 1.0
BACKOFF_MAX_S: Final = 300.0
CHANNEL_BACKOFF_MAX_S: Final = 30.0
"""A provider that nobody can reach is tried so often by one reply, for all of its channel."""
LIMIT_S: Final = 5.0
"""After a limit of which the provider does not say how long it lasts."""
ASKED_MIN_S: Final = 0.1
ASKED_MAX_S: Final = 3_600.0
"""A provider that asks for longer is asked again after this."""
DOUBLINGS_MAX: Final = 20
LATE_SHARE: Final = 0.1
"""By so much of its wait a lane comes back later, at random: many that wait for one time do not come in step."""
LATE_MAX_S: Final = 5.0


def fate_of(reply: Waiting, verdict: Verdict, give_up_s: float) -> Fate:
    """Do as an answer says; what was refused for now as an attempt fails after `give_up_s`."""
    if verdict.outcome is not Outcome.NOT_NOW:
        return Fate.of(verdict)
    if verdict.counts and _has_tried_enough(reply, give_up_s):
        return never(Word.GAVE_UP)
    return Fate.of(verdict, wait_s(verdict, reply.counted))


def wait_s(verdict: Verdict, attempt: int) -> float:
    """Return how long to wait after an answer that says: not now."""
    if verdict.wait_s is not None:
        return min(max(verdict.wait_s, 0.0 if verdict.route else ASKED_MIN_S), ASKED_MAX_S)
    if not verdict.counts:
        return later(LIMIT_S)
    most_s = CHANNEL_BACKOFF_MAX_S if verdict.scope is Scope.CHANNEL else BACKOFF_MAX_S
    return later(backoff_s(attempt, most_s))


def backoff_s(attempt: int, most_s: float = BACKOFF_MAX_S) -> float:
    """Return how long to wait after so many attempts: twice as long each time, up to a bound."""
    doublings = min(max(attempt, 1) - 1, DOUBLINGS_MAX)
    return min(most_s, BACKOFF_S * 2.0**doublings)


def later(seconds: float) -> float:
    """Add a little at random."""
    return seconds + random.uniform(0, min(LATE_MAX_S, LATE_SHARE * seconds))  # noqa: S311 - nothing secret about it


def _has_tried_enough(reply: Waiting, give_up_s: float) -> bool:
    """Whether a reply has been refused for long enough."""
    return reply.counted > 1 and reply.seconds_since(reply.first_sent_at or reply.sending_at) >= give_up_s
