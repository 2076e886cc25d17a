"""Users and the names that a provider has for them, decided as `sql/functions/find_or_create_user.sql` does."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

from onelane.deliveries import Delivery, IdentityChange
from onelane.history import Line
from onelane.model import JsonObject
from onelane.testing.bot.in_memory.inbox import Waiting
from onelane.testing.bot.in_memory.sessions import SessionRecord


@dataclass
class UserRecord:
    """One user."""

    sender: str
    id: UUID = field(default_factory=uuid4)
    state: JsonObject = field(default_factory=dict)
    version: int = 0
    last_seq: int = 0
    last_accepted_at: datetime | None = None
    last_written_at: datetime | None = None
    opted_out: bool = False
    is_paused: bool = False
    former_names: set[str] = field(default_factory=set)
    inbox: list[Waiting] = field(default_factory=list)
    sessions: list[SessionRecord] = field(default_factory=list)
    said_apart: list[Line] = field(default_factory=list)
    """What was said to them while no session was open."""

    @property
    def open_session(self) -> SessionRecord | None:
        """The session that nothing has ended yet."""
        return next((one for one in self.sessions if one.status != "ended"), None)

    @property
    def settled_seq(self) -> int:
        """The number of the last line before those that wait."""
        return self.inbox[0].seq - 1 if self.inbox else self.last_seq

    @property
    def lines(self) -> list[Line]:
        """All lines, in their order."""
        lines = [line for session in self.sessions for line in session.lines]
        return sorted([*lines, *self.said_apart], key=lambda line: line.seq)


class People:
    """All users of a channel."""

    def __init__(self) -> None:
        self.by_name: dict[str, UserRecord] = {}
        self.all: list[UserRecord] = []

    def whose(self, line: Delivery | IdentityChange) -> UserRecord:
        """Find whose a line is, or make a user; names that are missing are added, but none that was dropped."""
        adds, drops = (set(line.adds), set(line.drops)) if isinstance(line, IdentityChange) else (set(), set())
        conversation = getattr(line, "conversation", None)
        names = [conversation] if conversation else [*line.senders, *adds]
        known = {id(user): user for name in names if (user := self.by_name.get(name))}
        found = sorted(known.values(), key=lambda user: self._rank(user, set(names)))
        user = found[0] if found else self._new(names[0])
        for name in names:
            if name not in drops and (name in adds or name not in user.former_names):
                self.by_name.setdefault(name, user)
        return user

    def drop_names(self, user: UserRecord, names: tuple[str, ...]) -> None:
        """Let names mean the user no more, also in what is delivered late."""
        for name in names:
            if self.by_name.get(name) is user:
                del self.by_name[name]
                user.former_names.add(name)

    def _new(self, sender: str) -> UserRecord:
        user = UserRecord(sender)
        self.all.append(user)
        return user

    def _rank(self, user: UserRecord, names: set[str]) -> tuple[bool, bool, int]:
        """Prefer who had a name that is another's now, then who has an open session, then the older."""
        return not user.former_names & names, user.open_session is None, self.all.index(user)
