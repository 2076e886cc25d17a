"""One user's messages at times of the test's choosing, worked off without a worker and without Redis."""

from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

from onelane.postgres.connection import Row
from onelane.postgres.db import Database
from tests.calls import Item, failure, lease, settlement
from tests.rows import OneConnection, Rows

Turn = SimpleNamespace
"""What begin answered, flat: outcome, seq, session_id, …; `answer` is the whole of it."""


class ByHand:
    """Calls the SQL functions of a user's turns as a web and a worker do."""

    def __init__(
        self, database: Database | OneConnection, *, user_id: UUID | None = None, channel: str = "demo"
    ) -> None:
        self.rows = Rows(database)
        self._sender = uuid4().hex
        self._user_id = user_id
        self.channel = channel
        self.said = 0
        if user_id is not None:
            self._sender = self.ask("SELECT sender FROM users WHERE id = %s", user_id).sender

    @property
    def user_id(self) -> UUID:
        """The user, from the first message on."""
        assert self._user_id is not None, "nothing said yet"
        return self._user_id

    @classmethod
    def on(cls, connection: psycopg.Connection[Any], user_id: UUID | None = None, channel: str = "demo") -> "ByHand":
        """Use one connection, which may be in a transaction of the test's."""
        return cls(OneConnection(connection), user_id=user_id, channel=channel)

    def say(self, at: datetime | None = None, external_id: object = None) -> SimpleNamespace:
        """Accept a message of the user; at the database's time unless another is given."""
        self.said += 1
        item = {
            "channel": self.channel,
            "senders": [self._sender],
            "external_id": f"{self._sender} {external_id or self.said}",
            **({"now": at.isoformat()} if at else {}),
        }
        answer = self._call("accept", item)
        self._user_id = UUID(answer["user_id"])
        return SimpleNamespace(**{**answer, "message_id": UUID(answer["message_id"]), "user_id": self._user_id})

    def begin(self, hint: UUID | None = None, *, fence: int = 1, taken_over: bool = False) -> Turn:
        """Begin the user's next turn."""
        answer = self._call("begin_turns", lease(self.user_id, fence, hint=hint and str(hint), taken_over=taken_over))
        return flat(answer)

    def commit(self, turn: Turn, *, fence: int = 1, **effects: Any) -> SimpleNamespace:
        """Commit a turn with its effects."""
        return SimpleNamespace(**self._call("settle_turns", settlement(turn.answer, fence, **effects)))

    def fail(self, turn: Turn, *, fence: int = 1, attempts_max: int = 1, **extra: Any) -> SimpleNamespace:
        """Note a failed attempt; with as many as are allowed the message is dead."""
        item = failure(turn.answer, fence, attempts_max=attempts_max, **extra)
        return SimpleNamespace(**self._call("settle_turns", item))

    def turn(self, hint: UUID | None = None, **effects: Any) -> Turn:
        """Begin a turn and commit it."""
        turn = self.begin(hint)
        assert self.commit(turn, **effects).outcome == "committed"
        return turn

    def work_off(self) -> None:
        """Commit everything that waits."""
        while (turn := self.begin()).outcome == "turn":
            self.commit(turn)

    def resolve(self) -> UUID:
        """Ask for the session of the user's next turn."""
        session_id: UUID = self.do("get_or_create_session(%s)", self.user_id)
        return session_id

    def do(self, call: str, *params: Any) -> Any:
        """Call another function and return its answer."""
        return self.ask(f"SELECT {call} AS did", *params).did

    def ask(self, query: str, *params: Any) -> Row:
        """Run one statement that answers one row."""
        return self.rows.ask(query, *params)

    def _call(self, function: str, item: Item) -> Item:
        [answer] = self.ask(f"SELECT {function}(%s)", Jsonb([item]))[0]
        assert answer["outcome"] != "refused", answer
        assert isinstance(answer, dict)
        return answer


def flat(answer: Item) -> Turn:
    """Make the parts of a begun turn attributes."""
    turn = Turn(answer=answer, **{name: answer.get(name) for name in ("outcome", "fence", "hint")})
    if answer["outcome"] == "turn":
        [message], session, user = (answer["turn"][part] for part in ("messages", "session", "user"))
        vars(turn).update(
            message_id=UUID(message["id"]),
            accepted_at=datetime.fromisoformat(message["accepted_at"]),
            **{name: message[name] for name in ("seq", "text", "attempts", "deaths")},
            session_id=UUID(session["id"]),
            session_status=session["status"],
            session_state=session["state"],
            user_state=user["state"],
            version=answer["turn"]["version"],
        )
    return turn
