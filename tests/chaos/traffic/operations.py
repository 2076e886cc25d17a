"""What the operator does, by the service's own code, straight to the servers: no network fault can make it happen late.

A command is repeated until it is done; all of them may be. The history has its begin before the first try and its end
after the last.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from onelane.bootstrap import Services
from onelane.errors import LaneBusy, LanesUnavailable, StoreUnavailable
from onelane.operations.dead import PAGE_MAX, DeadMessage, dead_messages
from onelane.operations.forgetting import forget
from onelane.users import user_of
from tests.chaos.history import Recorder
from tests.chaos.traffic.plan import User
from tests.chaos.traffic.speech import REDRIVEN

RETRY_PAUSE_S = 0.3
COMMAND_MAX_S = 90.0
WHO = "chaos"

Answer = TypeVar("Answer")


class GivenUp(Exception):  # noqa: N818 - it names what happened
    """A command was not done within COMMAND_MAX_S."""


class Operations:
    """The operator's console. Safe in threads, for one user in one thread at a time."""

    def __init__(self, services: Services, recorder: Recorder, history: Path) -> None:
        self._services = services
        self._recorder = recorder
        self._redriven = history / REDRIVEN
        self._redriven.mkdir(exist_ok=True)

    def do(self, name: str, user_id: UUID, after_seq: int) -> None:
        """Carry out a command; `redrive` means the user's first dead message that never was redriven."""
        acts: dict[str, Callable[[UUID], object]] = {
            "end": partial(self._services.acts.end_session, by=WHO),
            "escalate": partial(self._services.acts.escalate, by=WHO),
            "hand_back": partial(self._services.acts.hand_back, by=WHO),
            "pause": lambda user_id: self._services.acts.pause(user_id, by=WHO).did,
            "forget": lambda user_id: forget(self._services, user_id, WHO) is not None,
            "resume": lambda user_id: self._services.acts.resume(user_id, by=WHO).did,
        }
        if name == "redrive":
            for message in self.redrivable(user_id)[:1]:
                self.redrive(message, after_seq)
        else:
            self._do(lambda: acts[name](user_id), name=name, user_id=user_id, message_id=None, after_seq=after_seq)

    def redrive(self, message: DeadMessage, after_seq: int) -> None:
        """Let a dead message run again, and succeed."""
        self._mark(message.message_id).touch()
        self._do(
            lambda: self._services.acts.retry(message.message_id, by=WHO).did,
            name="redrive",
            user_id=message.user_id,
            message_id=message.message_id,
            after_seq=after_seq,
        )

    def redrivable(self, user_id: UUID | None = None) -> list[DeadMessage]:
        """List dead messages that were never redriven: none is twice, so that it is plain what a redrive did."""
        found, page = list[DeadMessage](), self._dead(user_id, None)
        while page:
            found += page
            page = self._dead(user_id, page[-1])
        return [one for one in found if not self._mark(one.message_id).exists()]

    def user_of(self, user: User) -> UUID | None:
        """Return the id that the service has given to somebody; None before their first message is accepted."""
        return _until_answered(lambda: user_of(self._services.database, user.channel, user.sender))

    def waiting(self) -> int:
        """Count the messages that wait, and the replies that are not settled."""
        query = "SELECT (SELECT count(*) FROM inbox) + (SELECT count(*) FROM outbox) AS n"
        counted: int = _until_answered(lambda: self._services.database.rows(query)[0].n)
        return counted

    def last_seq(self, user_id: UUID) -> int:
        """Tell the last number that a user's messages have got."""
        query = "SELECT last_seq FROM users WHERE id = %s"
        seq: int = _until_answered(lambda: self._services.database.rows(query, (user_id,))[0].last_seq)
        return seq

    def _do(self, act: Callable[[], object], **this: object) -> None:
        self._recorder.note("command", **this, phase="begin")
        try:
            answer = _until_answered(act)
        except GivenUp:
            self._recorder.note("command", **this, phase="end", is_done=False, answer=None)
            raise
        self._recorder.note("command", **this, phase="end", is_done=True, answer=answer)

    def _dead(self, user_id: UUID | None, after: DeadMessage | None) -> list[DeadMessage]:
        database = self._services.database
        return _until_answered(
            lambda: dead_messages(database, user_id=user_id, after=after.place if after else None, most=PAGE_MAX)
        )

    def _mark(self, message_id: UUID) -> Path:
        return self._redriven / str(message_id)


def _until_answered(ask: Callable[[], Answer]) -> Answer:
    ends = time.monotonic() + COMMAND_MAX_S
    while True:
        try:
            return ask()
        except (StoreUnavailable, LanesUnavailable, LaneBusy) as error:
            if time.monotonic() > ends:
                raise GivenUp(f"no answer within {COMMAND_MAX_S:g} s") from error
            time.sleep(RETRY_PAUSE_S)
