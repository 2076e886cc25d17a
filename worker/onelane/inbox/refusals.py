"""Why a delivery does not stand, and which of several refusals is the answer to a webhook."""

from collections.abc import Sequence
from typing import Final

from onelane.deliveries import Accepted
from onelane.errors import BacklogFull, StoreAway, StoreRefused, StoreUnavailable

GRAVEST_FIRST: Final = (StoreAway, StoreUnavailable, StoreRefused, BacklogFull)
"""Which of several refusals of one webhook is its answer: that of the server before that of a message or a user."""

Outcome = Accepted | BaseException
"""That a delivery stands, or why it does not."""


def gravest(outcomes: Sequence[Outcome]) -> BaseException | None:
    """Return what a webhook is refused for: that of the server before that of a message or a user."""
    return min((one for one in outcomes if isinstance(one, BaseException)), key=_gravity, default=None)


def _gravity(problem: BaseException) -> int:
    return next((place for place, kind in enumerate(GRAVEST_FIRST) if isinstance(problem, kind)), -1)
