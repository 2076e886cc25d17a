"""One run of a handler: what it reads, what it saves, and what is committed with its replies."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from functools import partial
from threading import Event
from typing import Any, Final, TypeVar
from uuid import uuid4

from onelane.bot.memory import Memory, held, kept
from onelane.bot.reply import Replies, all_of, uploads_in
from onelane.bot.storable import check_storable, step_key, step_value
from onelane.bot.subjects import Session, User
from onelane.errors import BadResult
from onelane.history import PROTOCOLS, Line, Protocol, Role, ToolCall, line_of
from onelane.model import Attachment, File, JsonObject, Message
from onelane.storable import is_storable

TOOL_NAME_MAX: Final = 200
UNFINISHED: Final = "This call did not finish; what it was to do may have happened."
"""The output of a tool whose call raised: history holds no call without one."""

Found = TypeVar("Found")


class ToolUse:
    """A tool at work: what came of it is to be put into `output`."""

    def __init__(self) -> None:
        self.output: Any = UNFINISHED


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
        self.is_first = session.is_first
        """Whether the session began with this turn."""
        self.previous_summary = session.previous_summary
        """What the session before left behind, in the first turn of this one."""
        self.reply_until = reply_until
        """Until when the provider takes anything but a template; None: always."""
        self._memory = memory
        self._cancelled = cancelled
        self._outputs: list[JsonObject] = []
        self._marks: JsonObject = {}
        self._states_before = (deepcopy(session.state), deepcopy(user.state), session.summary)
        self._key = f"{self.messages[0].id}:{self.message.seq}"

    @property
    def idempotency_key(self) -> str:
        """The same for every run of this batch: pass it to outside services that recognise repetitions.

        A batch that was widened by a newer message is another one; what `newer` takes in changes nothing.
        """
        return self._key

    @property
    def cancelled(self) -> bool:
        """Whether this turn lost its lease or its time, or newer messages throw it away: all of it is dropped."""
        return self._cancelled.is_set() or self._memory.is_interrupted

    def save_tool_output(self, name: str, data: Any) -> None:
        """Save JSON `data` for later turns of this session, under a name of at most TOOL_NAME_MAX characters."""
        self._keep_call(name, {}, str(uuid4()), data)

    @contextmanager
    def tool(self, name: str, arguments: JsonObject | None = None, *, call_id: str | None = None) -> Iterator[ToolUse]:
        """Keep a call of a tool with what the block puts into `output`, for history and for models.

        Should the block raise, the call is kept with an output that says so, if the turn commits all the same.
        """
        use = ToolUse()
        try:
            yield use
        finally:
            self._keep_call(name, arguments or {}, call_id or str(uuid4()), use.output)

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Let nothing that arrives from this line on throw the turn away: what follows has effects elsewhere."""
        self._memory.shield()
        self._marks["shielded"] = True
        yield

    def end_session(self, summary: str | None = None) -> None:
        """End the session with this message; the next one opens another."""
        self._marks["end"] = "handler"
        if summary is not None:
            self.session.summary = summary

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
        session_before, user_before, summary_before = self._states_before
        if self.session.state != session_before:
            effects["session_state"] = self.session.state
        if self.user.state != user_before:
            effects["user_state"] = self.user.state
        if self.session.summary != summary_before:
            effects["summary"] = _summary(self.session.summary)
        if effects:
            check_storable(effects)
        if uploads := uploads_in(said):
            effects["uploads"] = uploads
        return effects

    def _keep_call(self, name: str, arguments: JsonObject, call_id: str, output: Any) -> None:
        if not (isinstance(name, str) and 1 <= len(name) <= TOOL_NAME_MAX and is_storable(name)):
            raise BadResult(f"the name of a tool is a text of 1 to {TOOL_NAME_MAX} characters")
        call = {"call_id": call_id, "name": name, "arguments": deepcopy(arguments), "output": deepcopy(output)}
        self._outputs.append(call)

    def _took_in(self, newer: Sequence[Message]) -> tuple[Message, ...]:
        """Make what has arrived since a part of the batch."""
        if newer:
            self.messages = (*self.messages, *newer)
            self.message = newer[-1]
        return tuple(newer)

    def _own_lines(self) -> list[Line]:
        """Return this turn as history will show it, without its replies."""
        at, seq = self.message.accepted_at, self.message.seq
        called = [
            ToolCall(id=one["call_id"], name=one["name"], arguments=one["arguments"], output=one["output"])
            for one in self._outputs
        ]
        return [*map(line_of, self.messages), *(Line(role=Role.TOOL, seq=seq, at=at, call=call) for call in called)]

    def _own_output(self, name: str) -> JsonObject | None:
        """Return what this turn itself saved last under `name`."""
        return next((output for output in reversed(self._outputs) if output["name"] == name), None)


def _summary(summary: object) -> str | None:
    if isinstance(summary, str | None):
        return summary
    raise BadResult(f"a session's summary is a text, not {type(summary).__name__}")


class Turn(AnyTurn):
    """One run of the handler for one batch of one user."""

    def history(self, limit: int = 50) -> list[Line]:
        """Return the last `limit` lines of this session, oldest first, without this turn's messages."""
        return self._read(self._memory.history, self.session.id, limit)

    def model_messages(self, protocol: Protocol, limit: int = 50) -> list[JsonObject]:
        """Return the history and this turn, as a model is given it: `chat`, `responses` or `anthropic`."""
        return PROTOCOLS[protocol]([*self.history(limit), *self._own_lines()])

    def tool_output(self, name: str) -> Any:
        """Return the newest output saved under `name` in this session, this turn's included, or None."""
        own = self._own_output(name)
        return own["output"] if own else self._read(self._memory.tool_output, self.session.id, name)

    def newer(self) -> tuple[Message, ...]:
        """Take what has arrived since into this turn, which answers it too, and return it; ask between tool calls."""
        return self._took_in(self._read(self._memory.newer))

    def step(self, key: str, act: Callable[[], Found]) -> Found:
        """Return what `act` returns, JSON; should this batch's turn run again, what it returned then."""
        is_known, value = self._read(self._memory.known_step, step_key(key))
        stands: Found = value if is_known else kept(self._memory, key, step_value(act()))
        return stands

    def fetch(self, attachment: Attachment) -> File:
        """Fetch a file that the user sent; raise a FileError."""
        return self._memory.fetching(attachment).result()

    def _read(self, read: Callable[..., Found], *what: Any) -> Found:
        with self._memory.reading():
            return read(*what)


class AsyncTurn(AnyTurn):
    """One run of an async handler: a Turn whose reading methods are coroutines, so that no read blocks the loop."""

    def __init__(self, *parts: Any, readers: Executor | None = None) -> None:
        """Take a Turn's parts; reads run in `readers`, or in the loop's own threads."""
        super().__init__(*parts)
        self._readers = readers

    async def history(self, limit: int = 50) -> list[Line]:
        """Return the last `limit` lines of this session, oldest first, without this turn's messages."""
        return await self._read(self._memory.history, self.session.id, limit)

    async def model_messages(self, protocol: Protocol, limit: int = 50) -> list[JsonObject]:
        """Return the history and this turn, as a model is given it: `chat`, `responses` or `anthropic`."""
        return PROTOCOLS[protocol]([*await self.history(limit), *self._own_lines()])

    async def tool_output(self, name: str) -> Any:
        """Return the newest output saved under `name` in this session, this turn's included, or None."""
        own = self._own_output(name)
        return own["output"] if own else await self._read(self._memory.tool_output, self.session.id, name)

    async def newer(self) -> tuple[Message, ...]:
        """Take what has arrived since into this turn, which answers it too, and return it; ask between tool calls."""
        return self._took_in(await self._read(self._memory.newer))

    async def step(self, key: str, act: Callable[[], Awaitable[Found]]) -> Found:
        """Return what `act` returns, JSON; should this batch's turn run again, what it returned then."""
        is_known, value = await self._read(self._memory.known_step, step_key(key))
        stands: Found = value if is_known else await self._kept(key, step_value(await act()))
        return stands

    async def fetch(self, attachment: Attachment) -> File:
        """Fetch a file that the user sent; raise a FileError."""
        return await asyncio.wrap_future(self._memory.fetching(attachment))

    async def _kept(self, key: str, value: Any) -> Any:
        """Keep a step's result as `kept` does; no pause holds up the loop, or a thread that others read in."""
        with self._memory.keeping() as hold:
            stands = await held(partial(self._read, self._memory.keep_step, key, value), hold)
            hold.done()
            return stands

    async def _read(self, read: Callable[..., Found], *what: Any) -> Found:
        with self._memory.reading():
            return await asyncio.get_running_loop().run_in_executor(self._readers, read, *what)
