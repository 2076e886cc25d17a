"""One trace for a message, from its webhook to its provider's answer, where OpenTelemetry is told where to send spans.

`start` chooses once for a process. Without it nothing of OpenTelemetry is imported, and a span is NOTHING. What a later
process needs to go on with a trace, its `traceparent`, lies in the rows of messages and replies.

No attribute is a text, a name, a number of a person, an address or a token: ids of ours, words of ours, numbers. Errors
are named by their class, since their texts may quote.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from typing import Final, Protocol
from uuid import UUID

from onelane.deliveries import Accepted
from onelane.errors import kind_of
from onelane.model import JsonObject, TurnRead
from onelane.telemetry.log import event

STOPS_S: Final = 2.0
"""What is not sent by then, at the end of a process, is lost: a collector that does not answer holds nothing up."""
SYSTEM: Final = {"messaging.system": "onelane"}

Value = str | int | float | None
Attributes = Mapping[str, Value]


class Kind(StrEnum):
    """OpenTelemetry's kinds of spans."""

    SERVER = "server"
    PRODUCER = "producer"
    CONSUMER = "consumer"
    CLIENT = "client"
    INTERNAL = "internal"


class Span:
    """A span that nobody records."""

    @property
    def traceparent(self) -> str | None:
        """What a span that comes of this one needs to know, as W3C writes it."""
        return None

    def note(self, attributes: Attributes) -> None:
        """Add attributes; those that are None are left out."""

    def fail(self, kind: str) -> None:
        """Say that it failed, in a word."""

    def end(self) -> None:
        """End it, where nothing else does."""


class Tracer(Protocol):
    """Makes spans that are recorded."""

    def begun(self, name: str, kind: Kind, attributes: Attributes) -> Span:
        """Begin a child of the span around it, which the caller ends."""

    def around(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        parent: str | None = None,
        links: Sequence[str] = (),
        began_ns: int | None = None,
    ) -> AbstractContextManager[Span]:
        """Open a span around what is done in a block: a child of the span around that, else of `parent`.

        It fails with the error that leaves the block. `began_ns` is by the system's clock; None: now.
        """

    def passed(self, name: str, attributes: Attributes, parent: str | None, began_ns: int) -> None:
        """Record what a server was asked from `began_ns`, by the system's clock, until now."""

    @property
    def traceparent(self) -> str | None:
        """That of the span around the caller."""

    def stop(self, within_s: float) -> None:
        """Send what is left, and end."""


NOTHING: Final = nullcontext(Span())
_tracer: Tracer | None = None
"""Set by `start` and `stop`, of one thread, before and after all others work."""


def start(process: str) -> None:
    """Trace what this process does from now on; where that is impossible, log it."""
    global _tracer  # noqa: PLW0603 - as the log: what is asked for everywhere
    try:
        from onelane.telemetry.open_telemetry import OpenTelemetry  # noqa: PLC0415 - who traces nothing has none

        _tracer = OpenTelemetry.exporting(process)
    except Exception as error:  # noqa: BLE001 - it is not installed, or one of its variables is wrong
        event("tracing_impossible", error=kind_of(error))


def stop() -> None:
    """Trace nothing any more, and send what is left, for STOPS_S at most."""
    global _tracer  # noqa: PLW0603 - as above
    if (tracer := _tracer) is not None:
        _tracer = None
        tracer.stop(STOPS_S)


def traceparent() -> JsonObject:
    """Return the field of a row that goes on with the span around the caller; empty where nothing is traced."""
    return {"traceparent": _tracer.traceparent} if _tracer else {}


def webhook(channel: str, parent: str, began_ns: int) -> AbstractContextManager[Span]:
    """Trace a request that is verified by now; `parent` is its header `traceparent`, or empty."""
    if _tracer is None:
        return NOTHING
    attributes = {"http.request.method": "POST", "http.route": "/webhooks/<channel>", "onelane.channel": channel}
    return _tracer.around(f"POST /webhooks/{channel}", Kind.SERVER, attributes, parent, began_ns=began_ns)


def accepting(channel: str, items: Sequence[JsonObject]) -> AbstractContextManager["Sends"]:
    """Trace the accept of items of one channel, each by itself: write what their turns go on with into them."""
    return NOTHING_SENT if _tracer is None else _accepting(_tracer, channel, items)


class Sends:
    """The spans of items that are being accepted: messages are sent to their lanes. None where nothing is traced."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans

    def note(self, outcomes: Sequence[Accepted | BaseException]) -> None:
        """Say what became of each."""
        for span, outcome in zip(self._spans, outcomes, strict=False):
            if isinstance(outcome, Accepted):
                names = _line(outcome.message_id, outcome.user_id, outcome.seq)
                span.note({**names, "onelane.is_duplicate": outcome.duplicate})
            else:
                span.fail(kind_of(outcome))


NOTHING_SENT: Final = nullcontext(Sends(()))


@contextmanager
def _accepting(tracer: Tracer, channel: str, items: Sequence[JsonObject]) -> Iterator[Sends]:
    about = {**_operation("send", channel), "messaging.destination.template": "user:{id}"}
    spans = [tracer.begun(f"send {channel}", Kind.PRODUCER, about) for _ in items]
    for item, span in zip(items, spans, strict=True):
        item["traceparent"] = span.traceparent
    try:
        yield Sends(spans)
    finally:
        for span in spans:
            span.end()


def saying(channel: str) -> AbstractContextManager[Span]:
    """Trace that something is said from outside a turn."""
    if _tracer is None:
        return NOTHING
    return _tracer.around(f"send {channel}", Kind.PRODUCER, _operation("send", channel))


def received(turn: TurnRead, began_ns: int) -> None:
    """Trace that Postgres was asked for a turn."""
    if _tracer is not None:
        channel = turn.user.channel
        _tracer.passed(f"receive {channel}", _operation("receive", channel), turn.first.traceparent, began_ns)


def working_off(turn: TurnRead, fence: int) -> AbstractContextManager[Span]:
    """Trace a turn, from what its handler gets to what is stored: it goes on with its message, or links to several."""
    if _tracer is None:
        return NOTHING
    channel, links = turn.user.channel, [one.traceparent for one in turn.messages if one.traceparent]
    about = {
        **_operation("process", channel),
        **_line(turn.message.id, turn.user.id, turn.message.seq),
        "onelane.session_id": str(turn.session.id),
        "onelane.fence": fence,
        "onelane.attempts": turn.first.attempts,
        "onelane.deaths": turn.first.deaths,
        "onelane.wait_s": round(time.time() - turn.first.accepted_at.timestamp(), 3),
        "messaging.batch.message_count": len(turn.messages) if len(turn.messages) > 1 else None,
    }
    if len(turn.messages) > 1:
        return _tracer.around(f"process {channel}", Kind.CONSUMER, about, None, links)
    return _tracer.around(f"process {channel}", Kind.CONSUMER, about, turn.message.traceparent)


def handling(*, is_apart: bool) -> AbstractContextManager[Span]:
    """Trace the handler alone."""
    if _tracer is None:
        return NOTHING
    return _tracer.around("handle", Kind.INTERNAL, {"onelane.is_apart": int(is_apart)})


def settling(turn: TurnRead) -> AbstractContextManager[Span]:
    """Trace that Postgres stores what came of a turn."""
    if _tracer is None:
        return NOTHING
    channel = turn.user.channel
    return _tracer.around(f"settle {channel}", Kind.CLIENT, _operation("settle", channel), turn.first.traceparent)


def requesting(
    what: str, provider: str, parent: str | None, named: Callable[[], Attributes]
) -> AbstractContextManager[Span]:
    """Trace a request for a reply, or a look-up of one; `named` is asked where it is traced."""
    if _tracer is None:
        return NOTHING
    names = named()
    about = {
        **_operation(what, str(names["channel"])),
        "messaging.message.id": names["reply_id"],
        "messaging.message.conversation_id": names["user_id"],
        "onelane.provider": provider,
        "onelane.fence": names["fence"],
        "onelane.attempt": names["attempt"],
    }
    return _tracer.around(f"{what} {provider}", Kind.CLIENT, about, parent)


def _operation(name: str, channel: str) -> dict[str, Value]:
    return {**SYSTEM, "messaging.operation.name": name, "messaging.destination.name": channel}


def _line(message_id: UUID, user_id: UUID, seq: int) -> dict[str, Value]:
    """Name a line and its user: the conversation is the user's, which outlives sessions."""
    return {
        "messaging.message.id": str(message_id),
        "messaging.message.conversation_id": str(user_id),
        "onelane.seq": seq,
    }
