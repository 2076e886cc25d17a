"""Marks in Redis by which the workers divide their duties: who does a round, and how far a lap has come."""

from uuid import UUID

from onelane import keys
from onelane.lanes.scripts import Scripts, text_of
from onelane.model import uuid_or_none


class Marks:
    """The marks. All of them may be lost: then a duty is done once more, or from its beginning."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._client = scripts.client

    def claim_duty(self, name: str, worker: str, seconds: float) -> bool:
        """Take a duty for one round; return False while another worker has it."""
        key, ttl_ms = keys.duty(name), round(seconds * 1000)
        return bool(self._scripts.ask_once(lambda: self._client.set(key, worker, nx=True, px=ttl_ms)))

    def is_reconciled(self) -> bool:
        """Whether a lap over all waiting users was done lately, on this Redis."""
        return bool(self._scripts.ask(lambda: self._client.exists(keys.RECONCILED)))

    def note_reconciled(self, seconds: int) -> None:
        """Note that a lap is done; the next is due after `seconds`, and begins with the first user."""
        self._scripts.ask(lambda: self._client.set(keys.RECONCILED, 1, ex=seconds))
        self._scripts.ask(lambda: self._client.delete(keys.RECONCILE_CURSOR))

    def cursor(self) -> UUID | None:
        """Return the user after whom the lap goes on; None at its beginning."""
        cursor = self._scripts.ask(lambda: self._client.get(keys.RECONCILE_CURSOR))
        return uuid_or_none(text_of(cursor)) if cursor else None

    def move_cursor(self, after: UUID) -> None:
        """Let the lap go on after this user, whichever worker does the next round."""
        self._scripts.ask(lambda: self._client.set(keys.RECONCILE_CURSOR, str(after)))
