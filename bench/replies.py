"""When replies are committed: a trigger of this benchmark sends a notification, so that nothing polls."""

import threading
import time
from collections.abc import Sequence
from uuid import UUID

import psycopg
from psycopg.sql import SQL, Literal

from bench import checking
from bench.stack import Stack

TRIGGER = SQL("""
CREATE FUNCTION notify_reply() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify('replies', NEW.user_id || ' ' || NEW.turn_seq); RETURN NULL; END $$;
CREATE TRIGGER notify_reply AFTER INSERT ON messages FOR EACH ROW
WHEN (NEW.direction = 'out' AND NEW.user_id <> ALL ({ignored})) EXECUTE FUNCTION notify_reply();
""")
TURNS = "SELECT user_id || ' ' || turn_seq, external_id FROM messages WHERE direction = 'in'"
ANSWERED = "SELECT external_id FROM messages WHERE direction = 'in' AND state = 'processed'"
TICK_S = 0.2


class Replies:
    """Receives notifications of replies, except to `ignored` users; Postgres sends them once replies are visible."""

    def __init__(self, stack: Stack, ignored: Sequence[UUID] = ()) -> None:
        self._stack = stack
        self._at: dict[str, float] = {}
        self._stopped = threading.Event()
        self._connection = psycopg.connect(stack.postgres.url, autocommit=True)
        self._connection.execute(TRIGGER.format(ignored=Literal(list(ignored))))
        self._connection.execute("LISTEN replies")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def wait_for(self, how_many: int, within_s: float) -> None:
        """Wait until so many have come, or the time is over."""
        ends = time.monotonic() + within_s
        while len(self._at) < how_many and time.monotonic() < ends:
            time.sleep(TICK_S)

    def stop(self) -> dict[str, float]:
        """Return when the notification of each webhook's reply came, by the webhook's id, on the monotonic clock."""
        self._stopped.set()
        self._thread.join()
        self._connection.close()
        ids = dict(self._stack.rows(TURNS))
        return {ids[turn]: at for turn, at in self._at.items()}

    def _listen(self) -> None:
        while not self._stopped.is_set():
            for notification in self._connection.notifies(timeout=TICK_S):
                self._at.setdefault(notification.payload, time.monotonic())


class Unnoticed:
    """Replies whose moment nobody asks for: nothing is added to what Postgres does."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def wait_for(self, how_many: int, within_s: float) -> None:
        """Wait until so many are committed, or the time is over."""
        ends = time.monotonic() + within_s
        while checking.processed(self._stack) < how_many and time.monotonic() < ends:
            time.sleep(TICK_S)

    def stop(self) -> dict[str, float]:
        """Return the ids of the webhooks that have a reply, each with the moment at which this was asked."""
        now = time.monotonic()
        return {external_id: now for (external_id,) in self._stack.rows(ANSWERED)}
