"""Where a shift is, since when, and how long it may be there: what the watch knows of a slot."""

from enum import StrEnum
from typing import Final, NamedTuple

from onelane.config import Settings
from onelane.errors import StoreUnavailable
from onelane.model import TurnRead
from onelane.turns.isolation import STARTS_MAX_S
from onelane.turns.memory import TurnMemory

HANDLER_GRACE_S: Final = 1.0
"""An async handler is cancelled by its host first; a thread that hangs is given up after this."""
SERVERS_MAX_S: Final = 45.0
"""Longer than Postgres or Redis may take for a call, with all that it waits for."""


class Stage(StrEnum):
    """What a slot does with its lane. To handle apart is to wait for a child process."""

    BEGIN = "begin"
    HANDLE = "handle"
    APART = "apart"
    COMMIT = "commit"
    FINISH = "finish"
    PARK = "park"

    @property
    def is_leaving(self) -> bool:
        """Whether the lane may be another's already."""
        return self in {Stage.FINISH, Stage.PARK}

    def limit_s(self, settings: Settings) -> float:
        """Return the seconds after which a slot that is still there is stuck."""
        match self:
            case Stage.HANDLE:
                return settings.turn_timeout_s + HANDLER_GRACE_S
            case Stage.APART:
                return settings.turn_timeout_s + STARTS_MAX_S + SERVERS_MAX_S
            case Stage.COMMIT:
                return settings.commit_hold_s + SERVERS_MAX_S
            case _:
                return SERVERS_MAX_S


class Stay(NamedTuple):
    """A stage of one shift. A new one each time: whoever compares two asks whether the shift has moved."""

    stage: Stage
    since: float
    """By the host's clock."""
    turn: TurnRead | None = None
    """Whose handler runs, here or apart."""
    memory: TurnMemory | None = None
    """What that turn reads from."""

    @property
    def batch(self) -> TurnRead | None:
        """The turn with what it has taken in by now."""
        return self.turn.widened(self.memory.claimed) if self.memory and self.turn else self.turn

    @property
    def held_s(self) -> float:
        """How long that turn has waited for its results to be kept: no time of its stage."""
        return self.memory.held_s if self.memory else 0.0

    @property
    def outage(self) -> StoreUnavailable | None:
        """What keeps the turn from reading, if anything does."""
        return self.memory.outage if self.memory else None
