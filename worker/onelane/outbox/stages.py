"""Where a shipment is, since when, and how long it may be there."""

from enum import StrEnum
from typing import Final, NamedTuple

from onelane.config import Settings
from onelane.turns.stages import SERVERS_MAX_S

REQUESTS_SLACK_S: Final = 15.0
"""A request, and all of a look-up, have a deadline of their own."""


class Stage(StrEnum):
    """What a slot does with its lane."""

    BEGIN = "begin"
    SEND = "send"
    ASK = "ask"
    SETTLE = "settle"
    LEAVE = "leave"

    def limit_s(self, settings: Settings) -> float:
        """Return the seconds after which a slot that is still there is stuck."""
        match self:
            case Stage.BEGIN | Stage.SETTLE:
                return settings.commit_hold_s + SERVERS_MAX_S
            case Stage.SEND | Stage.ASK:
                return settings.send_deadline_s + REQUESTS_SLACK_S
            case Stage.LEAVE:
                return SERVERS_MAX_S


class Stay(NamedTuple):
    """A stage of one shipment."""

    stage: Stage
    since: float
    """By the loop's clock."""
