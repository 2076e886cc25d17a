"""What the turns of one lease have left for Redis: jobs of messages that are done, lanes of replies that are due."""

from collections.abc import Sequence
from concurrent.futures import Future
from uuid import UUID

from onelane.lanes.lanes import Lanes
from onelane.model import TurnRead
from onelane.outcomes import Settled, SettleOutcome
from onelane.turns.answers import all_answered


class EndedTurns:
    """The turns of one lease that have ended."""

    def __init__(self, out_lanes: Lanes, user_id: UUID) -> None:
        """`out_lanes` learn at once of replies that wait."""
        self._out_lanes = out_lanes
        self._user_id = user_id
        self._made_due: list[Future[bool]] = []
        self._done: list[UUID] = []
        """Messages that became terminal under this lease, and that still have a job in Redis."""

    def note(self, turn: TurnRead, settled: Settled) -> None:
        """Take in what became of a turn."""
        self.make_due(settled.outbox)
        if settled.outcome in {SettleOutcome.COMMITTED, SettleOutcome.ALREADY}:
            self._done += [message.id for message in turn.messages]

    def make_due(self, outbox: Sequence[UUID]) -> None:
        """Let the lane of the user's replies know of those that wait."""
        self._made_due += self._out_lanes.enqueue_soon(self._user_id, outbox)

    def take_done(self) -> list[UUID]:
        """Return the messages whose jobs are to be removed now, once."""
        done, self._done = self._done, []
        return done

    async def answered(self) -> None:
        """Wait until Redis has answered."""
        await all_answered(self._made_due)
