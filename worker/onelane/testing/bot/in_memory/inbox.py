"""What waits for a user's turn, and what one turn takes together, decided as `sql/functions/joins_batch.sql` does."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from onelane.model import Message
from onelane.policy import Policy
from onelane.testing.bot.in_memory.sessions import SessionRecord, is_over

CLAIMED_MAX = 100


@dataclass
class Waiting:
    """A message that waits for its turn; the lowest of a batch keeps what is the batch's."""

    message: Message
    closes: bool = False
    is_busy: bool = False
    """It came while its user was answered, on a channel that answers nothing then."""
    batch_last: int | None = None
    """The number of the last member, once who is in is frozen."""
    superseded: int = 0
    not_before: datetime | None = None
    later_since: datetime | None = None
    edited_text: str | None = None
    steps: dict[tuple[int, str], Any] = field(default_factory=dict)

    @property
    def seq(self) -> int:
        """Its number."""
        return self.message.seq

    def counts(self, **changes: int) -> None:
        """Count attempts, deaths or delays."""
        self.message = self.message.model_copy(update=changes)


@dataclass
class Batches:
    """What a channel's turns take together."""

    policy: Policy

    def last(self, inbox: Sequence[Waiting], session: SessionRecord, most: int) -> int:
        """Return the number of the last that goes with the lowest, at most `most` further than the batch goes."""
        frozen = inbox[0].batch_last or inbox[0].seq
        last, *behind = [one for one in inbox if one.seq >= frozen]
        for one in behind[:most]:
            if not self._joins(session, last, one):
                break
            last = one
        return last.seq

    def _joins(self, session: SessionRecord, before: Waiting, one: Waiting) -> bool:
        kinds = {before.message.kind, one.message.kind}
        border = is_over(self.policy, session, one.message.accepted_at, before.message.accepted_at)
        is_alone = before.closes or one.closes or before.is_busy or one.is_busy
        return kinds == {"message"} and not (is_alone or border)
