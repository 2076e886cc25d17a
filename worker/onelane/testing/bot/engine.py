"""What stands behind a bot under test: memory, or real servers."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from onelane.deliveries import Delivery, IdentityChange
from onelane.history import Line
from onelane.model import Attachment, JsonObject, Upload
from onelane.testing.bot.answer import Outcome, SessionSeen

Item = Delivery | IdentityChange


class Known(NamedTuple):
    """What is known of a user."""

    id: UUID
    state: JsonObject
    sessions: Sequence[SessionSeen]
    """The oldest first."""


class Engine(Protocol):
    """Accepts what a provider delivers, works it off, and shows what came of it."""

    failures: list[str]
    """Where and why handlers failed, in order."""

    def accept(self, items: Sequence[Item]) -> list[bool]:
        """Accept what one request holds; of each, whether it is new."""

    def work_off(self) -> None:
        """Run turns until nothing can be done now, and send the replies."""

    def outcome(self, external_id: str) -> Outcome:
        """Return what became of a message."""

    def known(self, name: str) -> Known | None:
        """Return what is known of the user whom a provider names so."""

    def lines(self, user_id: UUID) -> list[Line]:
        """Return the lines of all sessions of a user, the oldest first."""

    def hand_back(self, user_id: UUID) -> None:
        """Give the user's session back to the bot, as an operator does."""

    def arrives_during_next_turn(self, items: Sequence[Item]) -> None:
        """Accept these while the next turn runs."""

    def keep(self, file: Upload) -> Attachment:
        """Keep a file's bytes for `turn.fetch`, and describe it as a provider would."""

    def crash_next(self, after: str) -> None:
        """Let the next turn's worker die."""

    def refuse_next(self) -> None:
        """Let the provider refuse the next reply."""

    def lose_next(self) -> None:
        """Let the provider take the next reply, and its answer be lost."""

    def close(self) -> None:
        """Stop everything."""
