"""One user's messages at times of the test's choosing, worked off without a worker and without Redis."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

from onelane.db import Database, Row
from tests.rows import OneConnection, Rows


class ByHand:
    """Calls the SQL functions of a user's turns as a web and a worker do."""

    def __init__(
        self, database: Database | OneConnection, *, user_id: UUID | None = None, channel: str = "demo"
    ) -> None:
        self.rows = Rows(database)
        self.user_id = user_id or uuid4()
        self.channel = channel
        self.said = 0

    @classmethod
    def on(cls, connection: psycopg.Connection[Any], user_id: UUID | None = None, channel: str = "demo") -> "ByHand":
        """Use one connection, which may be in a transaction of the test's."""
        return cls(OneConnection(connection), user_id=user_id, channel=channel)

    def say(self, at: datetime | None = None, external_id: object = None) -> Row:
        """Accept a message of the user; at the database's time unless another is given."""
        self.said += 1
        entry = {
            "user_id": str(self.user_id),
            "sender": str(self.user_id),
            "external_id": str(external_id or self.said),
        }
        return self.ask("SELECT * FROM accept(%s, %s, 10000, %s)", self.channel, Jsonb([entry]), at)

    def begin(self, hint: UUID | None = None, *, fence: int = 1, taken_over: bool = False) -> Row:
        """Begin the user's next turn."""
        return self.ask("SELECT * FROM begin_turn(%s, %s, %s, %s)", self.user_id, fence, hint, taken_over)

    def commit(self, turn: Row, *, fence: int = 1, **effects: Any) -> Row:
        """Commit a turn with its effects."""
        return self.ask(
            "SELECT * FROM commit_turn(%s, %s, %s, %s, %s)",
            *(self.user_id, fence, turn.message_id, turn.session_id, Jsonb(effects)),
        )

    def fail(self, turn: Row, *, fence: int = 1, attempts_max: int = 1, failure: str = "planted") -> Row:
        """Note a failed attempt; with as many as are allowed the message is dead."""
        return self.ask(
            "SELECT * FROM fail_turn(%s, %s, %s, %s, %s, %s, 'skip')",
            *(self.user_id, fence, turn.message_id, turn.session_id, failure, attempts_max),
        )

    def turn(self, hint: UUID | None = None, **effects: Any) -> Row:
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
