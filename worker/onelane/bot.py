"""What a bot author imports: a bot is a function that takes a Turn and returns its replies.

    from onelane import Reply, Turn

    def handle(turn: Turn) -> str | Reply | list[str | Reply] | None: ...

An `async` one takes an AsyncTurn, whose reading methods are coroutines. It holds no database connection. What it saves
through the turn is committed together with its replies: once, or not at all.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from datetime import datetime
from threading import Event
from typing import Any, Protocol, TypeVar
from uuid import UUID

from onelane.errors import BadResult, FileAway, FileError, FileGone, FileTooLarge, Later, StoreUnavailable
from onelane.model import Attachment, AttachmentKind, Button, File, JsonObject, Message, Upload, Utterance, is_storable
from onelane.reply import Replies, Reply, all_of, uploads_in

__all__ = [
    "AsyncTurn",
    "Attachment",
    "AttachmentKind",
    "Button",
    "File",
    "FileAway",
    "FileError",
    "FileGone",
    "FileTooLarge",
    "Later",
    "Message",
    "Reply",
    "Session",
    "Turn",
    "Upload",
    "User",
    "Utterance",
]

TOOL_NAME_MAX = 200
EFFECTS_MAX_BYTES = 1_000_000

Found = TypeVar("Found")


Handler = Callable[["Turn"], Replies | Awaitable[Replies]] | Callable[["AsyncTurn"], Awaitable[Replies]]


class User:
    """The sender. `state` is a JSON object that outlives sessions; changes are committed with the turn."""

    def __init__(self, user_id: UUID, channel: str, sender: str, state: JsonObject) -> None:
        self.id = user_id
        self.channel = channel
        self.sender = sender
        self.state = state


class Session:
    """The conversation. `state` is a JSON object that ends with it."""

    def __init__(self, session_id: UUID, started_at: datetime, state: JsonObject) -> None:
        self.id = session_id
        self.started_at = started_at
        self.state = state


class Memory(Protocol):
    """What a turn can read of its own session: from Postgres, or through a pipe when it runs in a child process."""

    def history(self, session_id: UUID, limit: int) -> list[Utterance]:
        """Return the last `limit` lines, newest first."""

    def tool_output(self, session_id: UUID, name: str) -> Any:
        """Return the newest output saved under `name`, or None."""

    def fetching(self, attachment: Attachment) -> Future[File]:
        """Begin to fetch a file of the turn's channel."""
        raise FileError(f"{attachment.kind}: there are no files here")

    def reading(self) -> AbstractContextManager[None]:
        """Enclose a read, with its wait for a thread to read in."""
        return nullcontext()

    @property
    def outage(self) -> StoreUnavailable | None:
        """What keeps the turn from reading, if anything does: its time is not the handler's then."""
        return None


class AnyTurn:
    """What Turn and AsyncTurn have in common: everything but reading."""

    def __init__(
        self,
        messages: Sequence[Message],
        user: User,
        session: Session,
        memory: Memory,
        cancelled: Event,
        reply_until: datetime | None = None,
    ) -> None:
        self.messages = tuple(messages)
        """The batch, in order; mostly one."""
        self.message = self.messages[-1]
        self.user = user
        self.session = session
        self.reply_until = reply_until
        """Until when the provider takes anything but a template; None: always."""
        self._memory = memory
        self._cancelled = cancelled
        self._outputs: list[JsonObject] = []
        self._marks: JsonObject = {}
        self._states_before = (deepcopy(session.state), deepcopy(user.state))

    @property
    def idempotency_key(self) -> str:
        """The same for every run of this batch: pass it to outside services that recognise repetitions."""
        return str(self.messages[0].id)

    @property
    def cancelled(self) -> bool:
        """Whether this turn lost its lease or its time: everything that it returns or saves will be dropped."""
        return self._cancelled.is_set()

    def save_tool_output(self, name: str, data: Any) -> None:
        """Save JSON `data` for later turns of this session, under a name of at most TOOL_NAME_MAX characters."""
        if not (isinstance(name, str) and 1 <= len(name) <= TOOL_NAME_MAX and is_storable(name)):
            raise BadResult(f"the name of a tool's output is a text of 1 to {TOOL_NAME_MAX} characters")
        self._outputs.append({"name": name, "output": deepcopy(data)})

    def end_session(self, summary: str | None = None) -> None:
        """End the session with this message; the next one opens another."""
        self._marks["end"] = "handler"
        if summary is not None:
            self._marks["summary"] = summary

    def escalate(self) -> None:
        """Hand the session to a human: further messages are kept, and not handled, until it is handed back."""
        self._marks["escalate"] = True

    def effects(self, replies: Replies) -> JsonObject:
        """Return everything to commit, replies as they were said; raise BadResult for what cannot be stored."""
        effects: JsonObject = dict(self._marks)
        if said := all_of(replies):
            effects["replies"] = [one.said() for one in said]
        if self._outputs:
            effects["tool_calls"] = self._outputs
        session_before, user_before = self._states_before
        if self.session.state != session_before:
            effects["session_state"] = self.session.state
        if self.user.state != user_before:
            effects["user_state"] = self.user.state
        if effects:
            _check_storable(effects)
        if uploads := uploads_in(said):
            effects["uploads"] = uploads
        return effects

    def _own_output(self, name: str) -> JsonObject | None:
        """Return what this turn itself saved last under `name`."""
        return next((output for output in reversed(self._outputs) if output["name"] == name), None)


class Turn(AnyTurn):
    """One run of the handler for one message of one user."""

    def history(self, limit: int = 50) -> list[Utterance]:
        """Return the last `limit` lines of this session, newest first, without this turn's message."""
        with self._memory.reading():
            return self._memory.history(self.session.id, limit)

    def tool_output(self, name: str) -> Any:
        """Return the newest output saved under `name` in this session, this turn's included, or None."""
        if own := self._own_output(name):
            return own["output"]
        with self._memory.reading():
            return self._memory.tool_output(self.session.id, name)

    def fetch(self, attachment: Attachment) -> File:
        """Fetch a file that the user sent; raise a FileError."""
        return self._memory.fetching(attachment).result()


class AsyncTurn(AnyTurn):
    """One run of an async handler: a Turn whose reading methods are coroutines, so that no read blocks the loop."""

    def __init__(self, *parts: Any, readers: Executor | None = None) -> None:
        """Take a Turn's parts; reads run in `readers`, or in the loop's own threads."""
        super().__init__(*parts)
        self._readers = readers

    async def history(self, limit: int = 50) -> list[Utterance]:
        """Return the last `limit` lines of this session, newest first, without this turn's message."""
        return await self._read(self._memory.history, limit)

    async def tool_output(self, name: str) -> Any:
        """Return the newest output saved under `name` in this session, this turn's included, or None."""
        own = self._own_output(name)
        return own["output"] if own else await self._read(self._memory.tool_output, name)

    async def fetch(self, attachment: Attachment) -> File:
        """Fetch a file that the user sent; raise a FileError."""
        return await asyncio.wrap_future(self._memory.fetching(attachment))

    async def _read(self, read: Callable[[UUID, Any], Found], what: Any) -> Found:
        with self._memory.reading():
            return await asyncio.get_running_loop().run_in_executor(self._readers, read, self.session.id, what)


def _check_storable(effects: Mapping[str, Any]) -> None:
    """Refuse what jsonb refuses, before a transaction is begun."""
    try:
        stored = json.dumps(effects, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadResult("a reply, output or state holds half of a character (a lone surrogate): replace it") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResult(f"a reply, output or state is not JSON: {type(error).__name__}") from None
    if b"\\u0000" in stored:
        raise BadResult("a reply, output or state holds a NUL character: take it out")
    if len(stored) > EFFECTS_MAX_BYTES:
        raise BadResult(f"a turn may store {EFFECTS_MAX_BYTES} bytes, not {len(stored)}")
    for name in ("session_state", "user_state"):
        if not isinstance(effects.get(name, {}), dict):
            raise BadResult(f"{name} is a JSON object")
