"""Somebody who talks to a bot under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onelane.deliveries import Delivery, Kind
from onelane.history import Role
from onelane.model import Attachment, Upload
from onelane.testing.bot.answer import Answer, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onelane.channels import Persona
    from onelane.history import Line, ToolCall
    from onelane.model import JsonObject
    from onelane.testing.bot.answer import SessionSeen
    from onelane.testing.bot.engine import Engine, Item, Known
    from onelane.testing.bot.playing import Playing


class Person:
    """One person, as the channel's provider names them."""

    def __init__(self, name: str, persona: Persona, engine: Engine, playing: Playing) -> None:
        self.name = name
        self._persona = persona
        self._engine = engine
        self._playing = playing
        self._newest: list[Item] = []
        self._message_id = ""
        """The provider's id of the newest message."""

    def says(self, *texts: str) -> Answer:
        """Write; several texts come at once. Return what the bot says to it."""
        return self._delivers([item for text in texts for item in self._playing.message(self._persona, text)])

    def presses(self, button: str) -> Answer:
        """Press a button by its id."""
        offered = [one for line in reversed(self.replies) for one in line.buttons if one.id == button]
        title = offered[0].title if offered else button
        return self._delivers(self._playing.message(self._persona, title, button=button))

    def sends(self, *files: Attachment | Upload, text: str = "") -> Answer:
        """Send files, several as an album, with a text."""
        attachments = [self._engine.keep(file) if isinstance(file, Upload) else file for file in files]
        return self._delivers(self._playing.album(self._persona, text, attachments))

    def types_over(self, *texts: str) -> None:
        """Let texts arrive while this bot's next turn runs."""
        for text in texts:
            self._engine.arrives_during_next_turn(self._playing.message(self._persona, text))

    def redelivers(self) -> Answer:
        """Let the provider deliver the newest message once more, as it does when it has missed the answer."""
        return self._delivers(self._newest)

    def edits(self, text: str) -> Answer:
        """Edit the newest message."""
        return self._happens("edited", text)

    def deletes(self) -> Answer:
        """Delete the newest message."""
        return self._happens("deleted")

    def becomes(self, new_id: str) -> Answer:
        """Have another id from now on, as the provider announces it."""
        items, persona = self._playing.change(self._persona, new_id)
        answer = self._delivers(items)
        self._persona = persona
        return answer

    def gets(self) -> Answer:
        """Return what comes without a message: what waited, and is due now."""
        return self._delivers([])

    def hand_back(self) -> None:
        """Give the session back to the bot, as an operator does after `turn.escalate()`."""
        if known := self._known:
            self._engine.hand_back(known.id)

    @property
    def state(self) -> JsonObject:
        """What `turn.user.state` is."""
        return known.state if (known := self._known) else {}

    @property
    def session(self) -> SessionSeen | None:
        """The newest session; `ended_reason` says why it is over, if it is."""
        return self.sessions[-1] if self.sessions else None

    @property
    def sessions(self) -> Sequence[SessionSeen]:
        """All sessions, the oldest first."""
        return known.sessions if (known := self._known) else ()

    @property
    def lines(self) -> list[Line]:
        """All that was said and called, in all sessions."""
        return self._engine.lines(known.id) if (known := self._known) else []

    @property
    def replies(self) -> list[Line]:
        """All that the bot said."""
        return [line for line in self.lines if line.role is Role.BOT]

    @property
    def tool_calls(self) -> list[ToolCall]:
        """All calls of tools that the bot's turns kept."""
        return [line.call for line in self.lines if line.call]

    @property
    def _known(self) -> Known | None:
        return self._engine.known(self._persona.conversation or self._persona.senders[0])

    def _delivers(self, items: list[Item]) -> Answer:
        """Deliver, let the bot work, and return what came of it."""
        before, failed_before = len(self.replies), len(self._engine.failures)
        self._newest = items or self._newest
        self._message_id = next((one.external_id for one in reversed(items) if _is_message(one)), self._message_id)
        are_new = self._engine.accept(items)
        self._engine.work_off()
        outcome = self._outcome() if not items or any(are_new) else Outcome.DUPLICATE
        return Answer(self.replies[before:], outcome, self.session, self._engine.failures[failed_before:])

    def _happens(self, event: str, text: str = "") -> Answer:
        return self._delivers(self._playing.event(self._persona, event, quoted=self._message_id, text=text))

    def _outcome(self) -> Outcome:
        return self._engine.outcome(self._newest[-1].external_id) if self._newest else Outcome.PROCESSED


def _is_message(item: Item) -> bool:
    return isinstance(item, Delivery) and item.kind is Kind.MESSAGE
