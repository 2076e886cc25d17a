"""What a user sees before the reply: that a message was seen, that an answer is being written, that a button is taken.

A sign is shown when a handler begins, and again while it runs, as often as the provider needs. Nothing waits for one,
none is stored and none is repeated because it failed: what cannot be shown at once is left out.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, Literal

from onelane.channels.provider import Provider
from onelane.channels.sender import Sender
from onelane.channels.sending import Request, Sign, SignKind
from onelane.channels.verdicts import TOO_MANY, Response
from onelane.config import Settings
from onelane.deliveries import Kind
from onelane.errors import describe, kind_of
from onelane.model import TurnRead
from onelane.outbox.broken import BrokenChannels
from onelane.outbox.sending import Sending, open_client
from onelane.telemetry.log import event
from onelane.telemetry.numbers import FIRST_SIGN_SECONDS, SIGNS
from onelane.turns.event_loop import EventLoop, all_of

AT_ONCE_MAX: Final = 16
"""Requests of one channel. With so many under way, others are left out."""
WITHIN_S: Final = 5.0
FAILURES_MAX: Final = 5
"""After so many in a row the channel shows nothing for QUIET_S: the token has no right, or the provider is away."""
QUIET_S: Final = 60.0
QUIET_MAX_S: Final = 300.0
CLOSES_S: Final = 1.0
KINDS: Final[Mapping[str, tuple[SignKind, ...]]] = {
    "none": (),
    "seen": (SignKind.SEEN,),
    "typing": (SignKind.SEEN, SignKind.TYPING),
}
"""What a channel's `presence` shows as a turn begins."""


class Presence:
    """The signs of all channels."""

    def __init__(
        self,
        settings: Settings,
        providers: Mapping[str, Provider],
        loop: EventLoop,
        broken: BrokenChannels,
    ) -> None:
        """Open what shows signs; not on an event loop, since that takes a second."""
        self._loop, self._broken = loop, broken
        self._most_s = settings.turn_timeout_s
        self._ways: dict[str, Signs] = {}
        for name, provider in providers.items():
            sender = provider.sender
            if sender is not None and sender.typing_every_s is not None:
                way = Sending(sender, open_client(sender, AT_ONCE_MAX), WITHIN_S)
                self._ways[name] = Signs(name, way, settings.channels[name].presence or "typing")
        if self._ways:
            broken.start()

    @contextmanager
    def during(self, turn: TurnRead) -> Iterator[None]:
        """Show that a turn's message is worked on, on the loop on which this is called."""
        channel = turn.user.channel
        signs = self._ways.get(channel) if turn.message.kind == Kind.MESSAGE else None
        if signs is None or self._broken.has(channel):
            yield
            return
        shown = _Shown(signs, turn, self._most_s)
        shown.begin()
        try:
            yield
        finally:
            shown.end()

    def close(self) -> None:
        """Close all connections; the signs that are under way are left out."""
        self._broken.stop()
        closing = self._loop.run(all_of([signs.close() for signs in self._ways.values()]))
        with suppress(TimeoutError):
            closing.result(CLOSES_S)


class Signs:
    """The signs of one channel. For one event loop."""

    def __init__(
        self,
        channel: str,
        sending: Sending,
        presence: Literal["none", "seen", "typing"] = "typing",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kinds = KINDS[presence]
        self._channel, self._sending, self._now = channel, sending, now
        self._under_way: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._quiet_until = 0.0

    @property
    def sender(self) -> Sender:
        """What writes the requests."""
        return self._sending.sender

    def show(self, requests: Iterable[Request], on_first: Callable[[], None] = lambda: None) -> None:
        """Begin to show; `on_first` is called when the provider has taken one."""
        for request in requests:
            if self._now() < self._quiet_until or len(self._under_way) >= AT_ONCE_MAX:
                SIGNS.count("left_out")
                continue
            task = asyncio.get_running_loop().create_task(self._show(request, on_first))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """End what is under way, and close the connections."""
        for task in self._under_way:
            task.cancel()
        await self._sending.close()

    async def _show(self, request: Request, on_first: Callable[[], None]) -> None:
        try:
            answer = await self._sending.call(request)
        except Exception as error:  # noqa: BLE001 - whatever it is: there is no sign
            self._failed(kind_of(error))
            return
        if self.sender.is_well(answer):
            self._failures = 0
            SIGNS.count("shown")
            on_first()
        elif answer.status == TOO_MANY:
            self._be_quiet(_wait_s(answer), str(answer.status))
        else:
            self._failed(str(answer.status))

    def _failed(self, why: str) -> None:
        SIGNS.count("failed")
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            self._be_quiet(QUIET_S, why)

    def _be_quiet(self, seconds: float, why: str) -> None:
        self._failures = 0
        self._quiet_until = self._now() + seconds
        event("signs_paused", channel=self._channel, why=why, seconds=seconds)


class _Shown:
    """The signs of one turn."""

    def __init__(self, signs: Signs, turn: TurnRead, most_s: float) -> None:
        """Show none later than `most_s` after the first: a handler that hangs is given up by then."""
        self._signs, self._turn = signs, turn
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + most_s
        self._is_new = turn.first.attempts + turn.first.laters == 0
        """Whether the user has seen no sign for this message yet."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Show the first signs."""
        try:
            # A provider that shows both in one call has one request for both.
            requests = {one.name: one for one in map(self._request, self._signs.kinds) if one is not None}
            self._signs.show([*self._acknowledgements(), *requests.values()], self._note_first)
            if SignKind.TYPING in self._signs.kinds:
                self._repeat_later()
        except Exception as error:  # noqa: BLE001 - no turn fails for it
            event("signs_failed", failure=describe(error))

    def end(self) -> None:
        """Show nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _repeat_later(self) -> None:
        every_s = self._signs.sender.typing_every_s
        if every_s is not None and self._loop.time() + every_s < self._ends:
            self._timer = self._loop.call_later(every_s, self._repeat)

    def _repeat(self) -> None:
        if (request := self._request(SignKind.TYPING)) is not None:
            self._signs.show([request])
            self._repeat_later()

    def _request(self, kind: SignKind) -> Request | None:
        message, user = self._turn.message, self._turn.user
        return self._signs.sender.presence(Sign(kind, message.external_id, (user.sender,), message.route))

    def _acknowledgements(self) -> list[Request]:
        """Write what ends the waiting of pressed buttons, also where nothing else is shown."""
        found = [self._signs.sender.acknowledge(message.route) for message in self._turn.messages]
        return [one for one in found if one is not None]

    def _note_first(self) -> None:
        if self._is_new:
            self._is_new = False
            FIRST_SIGN_SECONDS.observe(time.time() - self._turn.message.accepted_at.timestamp())


def _wait_s(answer: Response) -> float:
    """Return how long a provider asks to wait."""
    asked_s = answer.retry_after_s()
    return QUIET_S if asked_s is None else min(asked_s, QUIET_MAX_S)
