"""Lets turns know of newer messages that may throw them away: Redis has who wrote while this worker runs his turn.

Postgres decides when the turn is to be committed; whoever misses this only works in vain for longer.
"""

from typing import Final

from onelane.config import Settings
from onelane.lanes.keeper import Keeper
from onelane.lanes.lanes import Lanes

ROUND_S: Final = 0.1


def any_channel_interrupts(settings: Settings) -> bool:
    """Whether there is anything to look for."""
    return any(channel.on_busy == "interrupt" for channel in settings.channels.values())


class Interrupts:
    """Looks for newer messages, as long as the worker has lanes of turns."""

    def __init__(self, worker: str, lanes: Lanes, keeper: Keeper) -> None:
        self._worker = worker
        self._lanes = lanes
        self._keeper = keeper

    def round(self) -> None:
        """Look once."""
        kind = self._lanes.kind
        if held := {one.lease.user_id: one for one in self._keeper.holdings if one.lease.kind == kind}:
            for user_id, seq in self._lanes.newer(self._worker).items():
                if user_id in held:
                    held[user_id].note_newer(seq)
