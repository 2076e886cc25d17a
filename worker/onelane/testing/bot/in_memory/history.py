"""What a turn leaves behind, written as `sql/functions/settle_message.sql` does."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import uuid4

from onelane.channels.sender import OnUnknown, Sender
from onelane.channels.verdicts import Word
from onelane.config import Channel
from onelane.deliveries import Kind
from onelane.history import Line, Role, ToolCall
from onelane.model import JsonObject, Message, TurnRead
from onelane.testing.bot.answer import Outcome
from onelane.testing.bot.in_memory.people import UserRecord
from onelane.testing.bot.in_memory.sessions import SessionRecord
from onelane.testing.bot.in_memory.stored import stored

REPLY_FAILED: Final = "reply_failed"


def after_lost(channel: Channel, sender: Sender | None) -> str:
    """Return the state in which a reply ends whose answer was lost, as the channel finds out what became of it."""
    if sender is None:
        return "withheld"
    rule = OnUnknown(channel.on_unknown or sender.on_unknown)
    can_ask = type(sender).look_up is not Sender.look_up
    return "sent" if rule is OnUnknown.RESEND or (rule is OnUnknown.ASK and can_ask) else "unknown"


class Commit:
    """Stores what came of turns."""

    def __init__(self, apology: Sequence[JsonObject], lost: str) -> None:
        """Take what is said for a message that died, in rows; and what becomes of a reply whose answer is lost."""
        self._apology = apology
        self._lost = lost
        self.outcomes: dict[str, Outcome] = {}
        """By the message's external id."""
        self.refuses_next = False
        """Whether the provider will never take the next reply."""
        self.loses_next = False
        """Whether the provider's answer to the next reply is lost."""
        self._failed: list[JsonObject] = []

    def processed(self, user: UserRecord, session: SessionRecord, turn: TurnRead, effects: JsonObject) -> None:
        """Store a turn's effects with its messages."""
        self._store(user, session, turn, effects, Outcome.PROCESSED)

    def dead(self, user: UserRecord, session: SessionRecord, turn: TurnRead, effects: JsonObject | None) -> None:
        """Store that a message died, with the bot's own effects, or the apology if the channel makes one."""
        self._store(user, session, turn, {"replies": self._apology} if effects is None else effects, Outcome.DEAD)

    def rejected(self, user: UserRecord, session: SessionRecord) -> None:
        """Store a message that came while its user was answered: without a turn."""
        message = user.inbox[0].message
        self._leaves(user, session, message)
        self.outcomes[message.external_id] = Outcome.PROCESSED
        user.version += 1

    def say_busy(
        self, user: UserRecord, session: SessionRecord | None, at: datetime, rows: Sequence[JsonObject]
    ) -> None:
        """Say to whoever is answered that no more is taken, behind what the last settled turn said."""
        said = user.said_apart if session is None else session.lines
        said += [self._reply(user.settled_seq, at, row) for row in rows]

    def _store(
        self, user: UserRecord, session: SessionRecord, turn: TurnRead, effects: JsonObject, outcome: Outcome
    ) -> None:
        for message in turn.messages:
            self._leaves(user, session, message)
            self.outcomes[message.external_id] = outcome
        session.lines += [_called(turn.message, call) for call in effects.get("tool_calls", ())]
        is_told = turn.message.event != REPLY_FAILED  # else the two would go on for ever
        session.lines += [
            self._reply(turn.message.seq, turn.message.accepted_at, row, withheld=user.opted_out, is_told=is_told)
            for row in effects.get("replies", ())
        ]
        session.state = stored(effects.get("session_state", session.state))
        session.summary = effects.get("summary", session.summary)
        user.state = stored(effects.get("user_state", user.state))
        if "escalate" in effects and session.status == "active":
            session.escalate(session.last_message_at)
        if "end" in effects:
            session.end(turn.message.accepted_at, effects["end"])
        user.version += 1

    def _reply(self, seq: int, at: datetime, row: JsonObject, *, withheld: bool = False, is_told: bool = True) -> Line:
        """Make the line of a reply; where it fails, its bot is told."""
        failure = row.get("failure")
        state = "withheld" if withheld or failure == Word.NO_ROUTE else "failed" if failure else "sent"
        if state == "sent" and self.refuses_next:
            self.refuses_next, state, failure = False, "failed", Word.UNREACHABLE
        elif state == "sent" and self.loses_next:
            self.loses_next, state = False, self._lost
        if state == "failed" and is_told:
            self._failed.append({"id": str(uuid4()), "word": str(failure), "code": None})
        return Line(
            role=Role.BOT,
            seq=seq,
            at=at,
            text=row["text"],
            media=row.get("attachments", ()),
            buttons=row.get("parts", {}).get("buttons", ()),
            state=state,
        )

    def take_failed(self) -> list[JsonObject]:
        """Return the replies that have failed, as their events name them, once."""
        failed, self._failed = self._failed, []
        return failed

    def _leaves(self, user: UserRecord, session: SessionRecord, message: Message) -> None:
        """Move a message from the inbox into history."""
        waited = user.inbox.pop(0)
        if session.status != "ended":
            session.last_message_at = max(session.last_message_at, message.accepted_at)
        session.lines.append(line_of(message, waited.edited_text))


def line_of(message: Message, edited_text: str | None = None) -> Line:
    """Make the line of a message or an event."""
    return Line(
        role=Role.EVENT if message.kind == Kind.EVENT else Role.USER,
        seq=message.seq,
        at=message.accepted_at,
        text=message.text if edited_text is None else edited_text,
        button=message.button,
        media=message.attachments,
        author=message.author,
        event=message.event,
        state="processed",
    )


def _called(message: Message, call: JsonObject) -> Line:
    arguments, output = stored(call["arguments"]), stored(call["output"])
    kept = ToolCall(id=call["call_id"], name=call["name"], arguments=arguments, output=output)
    return Line(role=Role.TOOL, seq=message.seq, at=message.accepted_at, call=kept)
