"""What a provider delivers, accepted in memory as `sql/functions/accept_one.sql` does."""

from collections.abc import Sequence
from copy import deepcopy
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from onelane.channels import Provider
from onelane.channels.sending import Piece
from onelane.config import Settings
from onelane.deliveries import Delivery, IdentityChange, Kind
from onelane.end_words import is_end
from onelane.history import Line
from onelane.inbox.items import IDENTITY_CHANGED
from onelane.model import Attachment, JsonObject, Message, Upload
from onelane.testing.bot.answer import Outcome
from onelane.testing.bot.clock import Clock
from onelane.testing.bot.engine import Item, Known
from onelane.testing.bot.in_memory.history import REPLY_FAILED, line_of
from onelane.testing.bot.in_memory.inbox import Waiting
from onelane.testing.bot.in_memory.people import People, UserRecord
from onelane.testing.bot.in_memory.sessions import is_over
from onelane.testing.bot.in_memory.turns import Turns
from onelane.testing.bot.settings import CHANNEL
from onelane.turns.bots import Bots

CONTENT: Final = (
    "kind", "text", "button", "attachments", "event", "external_id", "parts", "raw", "quoted", "author", "mentioned",
    "repairs", "route", "sent_at",
)  # fmt: skip


class InMemory:
    """Keeps the promises of the service, without servers."""

    def __init__(self, settings: Settings, bots: Bots, provider: Provider, clock: Clock) -> None:
        self.failures: list[str] = []
        self._channel = settings.channels[CHANNEL]
        self._policy = policy = bots.completed(settings.policies[0])
        self._clock = clock
        self._people = People()
        self._accepted: dict[str, tuple[UserRecord, int]] = {}
        self._arriving: list[Item] = []
        self._turns = Turns(settings, policy, bots, provider, clock, self.failures, self._arrive)
        self._busy_rows = self._turns.senders.rows(CHANNEL, self._busy_replies())

    def accept(self, items: Sequence[Item]) -> list[bool]:
        """Accept what one request holds; of each, whether it is new."""
        return [self._accept(item) for item in items]

    def work_off(self) -> None:
        """Run turns until nothing can be done now."""
        for user in self._people.all:
            self._turns.work_off(user)
            while failed := self._turns.commit.take_failed():
                for reply in failed:
                    self._tell_failure(user, reply)
                self._turns.work_off(user)

    def outcome(self, external_id: str) -> Outcome:
        """Return what became of a message."""
        return self._turns.commit.outcomes.get(external_id, Outcome.WAITING)

    def known(self, name: str) -> Known | None:
        """Return what is known of the user whom a provider names so."""
        user = self._people.by_name.get(name)
        return None if user is None else Known(user.id, deepcopy(user.state), [one.seen() for one in user.sessions])

    def lines(self, user_id: UUID) -> list[Line]:
        """Return the lines of all sessions of a user, the oldest first."""
        return self._user(user_id).lines

    def hand_back(self, user_id: UUID) -> None:
        """Give the user's session back to the bot."""
        session = self._user(user_id).open_session
        if session is not None:
            session.status = "active"

    def arrives_during_next_turn(self, items: Sequence[Item]) -> None:
        """Accept these while the next turn runs."""
        self._arriving += items

    def keep(self, file: Upload) -> Attachment:
        """Keep a file's bytes for `turn.fetch`, and describe it as a provider would."""
        return self._turns.files.keep(file)

    def crash_next(self, after: str) -> None:
        """Let the next turn's worker die."""
        self._turns.crashes_after = after

    def refuse_next(self) -> None:
        """Let the provider refuse the next reply."""
        self._turns.commit.refuses_next = True

    def lose_next(self) -> None:
        """Let the provider's answer to the next reply be lost."""
        self._turns.commit.loses_next = True

    def close(self) -> None:
        """Keep nothing open."""

    def _user(self, user_id: UUID) -> UserRecord:
        return next(user for user in self._people.all if user.id == user_id)

    def _arrive(self) -> None:
        arriving, self._arriving = self._arriving, []
        self.accept(arriving)

    def _accept(self, line: Item) -> bool:
        user = self._people.whose(line)
        if line.external_id in self._accepted:
            return False
        at = max(self._clock(), user.last_accepted_at or self._clock())
        user.last_seq, user.last_accepted_at = user.last_seq + 1, at
        self._accepted[line.external_id] = user, user.last_seq
        message = _message(line, user.last_seq, at)
        if message.kind == Kind.MESSAGE:
            written = min(message.sent_at or at, at)
            user.last_written_at = max(written, user.last_written_at or written)
        if isinstance(line, IdentityChange):
            self._change_identity(user, line)
            self._take_event(user, message, at)
        else:
            user.sender = line.conversation or line.senders[0]
            self._take(user, line, message, at)
        return True

    def _take(self, user: UserRecord, line: Delivery, message: Message, at: datetime) -> None:
        if line.kind is Kind.MESSAGE:
            is_busy = self._channel.on_busy == "reject" and self._reject(user, at)
            closes = line.closes or is_end(line.kind, line.text, self._channel)
            user.inbox.append(Waiting(message, closes, is_busy))
            return
        if line.event in {"edited", "deleted"}:
            self._change_line(line)
        if line.event in {"opted_out", "opted_in"}:
            user.opted_out = line.event == "opted_out"
        self._take_event(user, message, at)

    def _reject(self, user: UserRecord, at: datetime) -> bool:
        """Whether somebody is answered and gets nothing more, as `sql/functions/reject_message.sql` decides."""
        session = user.open_session
        if session is not None and is_over(self._policy, session, at):
            session = None
        if not user.inbox or user.is_paused or (session is not None and session.status == "escalated"):
            return False
        if not user.opted_out and not any(one.is_busy for one in user.inbox):
            self._turns.commit.say_busy(user, session, at, self._busy_rows)
        return True

    def _busy_replies(self) -> list[Piece]:
        said = self._channel.busy_reply if self._channel.on_busy == "reject" else None
        return [Piece(text=said)] if said else []

    def _tell_failure(self, user: UserRecord, reply: JsonObject) -> None:
        """Make an event of a reply that failed."""
        at = max(self._clock(), user.last_accepted_at or self._clock())
        user.last_seq, name = user.last_seq + 1, f"{REPLY_FAILED}:{reply['id']}"
        failed = Delivery(
            senders=(user.sender,), kind=Kind.EVENT, event=REPLY_FAILED, external_id=name, parts={"reply": reply}
        )
        self._take_event(user, _message(failed, user.last_seq, at), at)

    def _take_event(self, user: UserRecord, message: Message, at: datetime) -> None:
        """Let an event wait for a turn where the bot has a function for it; else it is a line of the open session."""
        if message.kind == Kind.EVENT and self._policy.wants_events:
            user.inbox.append(Waiting(message))
            return
        session = user.open_session
        if session is not None and not is_over(self._policy, session, at):
            session.lines.append(line_of(message))
        self._turns.commit.outcomes[message.external_id] = Outcome.PROCESSED

    def _change_line(self, line: Delivery) -> None:
        """Show what was edited or deleted so, also while it waits."""
        user, seq = self._accepted.get(line.quoted or "", (None, 0))
        if user is None:
            return
        text = line.text if line.event == "edited" else ""
        for waiting in user.inbox:
            if waiting.seq == seq:
                waiting.edited_text = text
        for session in user.sessions:
            session.lines[:] = [
                one.model_copy(update={"text": text}) if one.seq == seq and one.role == "user" else one
                for one in session.lines
            ]

    def _change_identity(self, user: UserRecord, change: IdentityChange) -> None:
        user.former_names -= set(change.adds)
        self._people.drop_names(user, change.drops)
        if user.sender in change.drops:
            left = [name for name in (*change.adds, *change.senders) if name not in change.drops]
            user.sender = left[0] if left else user.sender


def _message(line: Item, seq: int, at: datetime) -> Message:
    """Give a line its number."""
    content = {name: value for name in CONTENT if (value := getattr(line, name, None)) is not None}
    if isinstance(line, IdentityChange):
        content |= {"kind": Kind.EVENT, "event": IDENTITY_CHANGED}
    given = {"id": uuid4(), "seq": seq, "accepted_at": at, "attempts": 0}
    return Message.model_validate({"text": "", "button": None, "attachments": (), **content, **given})
