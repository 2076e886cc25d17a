"""What `onelane send` does: play the provider, so that a bot can be talked to from a terminal.

A message is signed as its channel's provider would sign it and posted; its replies are read back from the
endpoint that only a development stack opens.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener
from uuid import uuid4

import click
from pydantic import TypeAdapter, ValidationError

from onelane.channels import provider_of
from onelane.channels.fields import ExternalId
from onelane.config import Channel, Settings
from onelane.dev.run.data_folder import running
from onelane.errors import ConfigError
from onelane.model import Delivery, JsonObject

POSTS_AT_ONCE_MAX = 32
ANSWER_WITHIN_S = 30
POLL_S = 0.05
DEFAULT_CHANNEL = "demo"


@dataclass(frozen=True)
class Target:
    """A channel of a running service."""

    base_url: str
    name: str
    channel: Channel

    @property
    def webhook(self) -> str:
        """Where its webhooks are posted."""
        return f"{self.base_url}/webhooks/{self.name}"


@dataclass(frozen=True)
class Posted:
    """What the service answered to one message."""

    external_id: str
    refusal: str | None = None
    seq: int | None = None
    """The message's number, if the provider's kind of answer tells it."""
    duplicate: bool = False


def send(
    user: str,
    text: str,
    *,
    channel: str | None = None,
    button: str | None = None,
    message_id: str | None = None,
    count: int = 1,
    wait: bool = True,
    timeout_s: float = ANSWER_WITHIN_S,
) -> int:
    """Send `count` messages at once, print the replies in order, and return the command's exit code."""
    try:
        target = find_target(channel)
        posted = _post_all(target, _numbered(_delivery(user, text, button, message_id), count))
        for line in _outcomes(target, user, posted, timeout_s) if wait else _receipts(posted):
            click.echo(line)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    refusals = [one.refusal for one in posted if one.refusal]
    for refusal in refusals:
        click.echo(f"refused: {refusal}", err=True)
    return 1 if refusals else 0


def find_target(name: str | None = None) -> Target:
    """Find the service: the stack that `onelane run` started, else what the environment describes."""
    port, channels = _running_stack() or _environment()
    name = name or (DEFAULT_CHANNEL if DEFAULT_CHANNEL in channels else next(iter(channels), DEFAULT_CHANNEL))
    if name not in channels:
        raise click.ClickException(f"no channel {name!r}; configured: {', '.join(channels) or 'none'}")
    return Target(f"http://127.0.0.1:{port}", name, channels[name])


def sign(target: Target, delivery: Delivery) -> Request:
    """Make the request with which the channel's provider would deliver `delivery`."""
    public = (target.channel.public_url or target.base_url).rstrip("/")
    signed = provider_of(target.channel).sign(f"{public}/webhooks/{target.name}", delivery)
    return Request(target.webhook, signed.body, dict(signed.headers), method="POST")  # noqa: S310 - always http


def _running_stack() -> tuple[int, Mapping[str, Channel]] | None:
    environment = running()
    if environment is None:
        return None
    channels = TypeAdapter(dict[str, Channel]).validate_json(environment["CHANNELS"])
    return int(environment["PORT"]), channels


def _environment() -> tuple[int, Mapping[str, Channel]]:
    try:
        settings = Settings.from_environment()
    except ConfigError as error:
        raise click.ClickException(f"no running service found: is `onelane run` running? ({error})") from None
    return settings.port, settings.channels


def _delivery(user: str, text: str, button: str | None, message_id: str | None) -> Delivery:
    """Make the message. The service checks the rest, but an id becomes a header, and all of it UTF-8."""
    try:
        external_id = TypeAdapter(ExternalId).validate_python(message_id or f"msg_{uuid4().hex}")
        return Delivery(senders=(user,), external_id=external_id, text=text, button=button)
    except ValidationError as error:
        problem = error.errors()[0]
        field = problem["loc"][0] if problem["loc"] else "message id"
        raise click.ClickException(f"{field}: {problem['msg'].removeprefix('Value error, ')}") from None


def _numbered(delivery: Delivery, count: int) -> list[Delivery]:
    """Make `count` messages of one, numbered so that their order can be seen."""
    if count == 1:
        return [delivery]
    return [
        delivery.model_copy(
            update={
                "external_id": f"{delivery.external_id}-{number}",
                "text": f"{delivery.text} {number}" if delivery.text else "",
            }
        )
        for number in range(1, count + 1)
    ]


def _post_all(target: Target, deliveries: Sequence[Delivery]) -> list[Posted]:
    with ThreadPoolExecutor(min(len(deliveries), POSTS_AT_ONCE_MAX)) as pool:
        return list(pool.map(lambda delivery: _post(target, delivery), deliveries))


def _post(target: Target, delivery: Delivery) -> Posted:
    try:
        answer = _call(target, sign(target, delivery))
    except HTTPError as error:
        with error:
            reason = error.read().decode(errors="replace").strip()
            return Posted(delivery.external_id, refusal=f"{error.code} {reason}")
    accepted = _json_object(answer)
    return Posted(delivery.external_id, seq=accepted.get("seq"), duplicate=accepted.get("duplicate", False))


def _json_object(answer: bytes) -> JsonObject:
    """Read an answer that is a JSON object; of any other, as some providers want it, there is nothing to read."""
    try:
        value = json.loads(answer)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _outcomes(target: Target, user: str, posted: Sequence[Posted], timeout_s: float) -> Iterator[str]:
    """Read what became of the messages, in their order, until all are done."""
    waiting = {one.external_id: one for one in posted if not one.refusal}
    # A provider whose answer has no number: look through the user's messages from the first on.
    after = min((one.seq or 1 for one in waiting.values()), default=1) - 1
    deadline = time.monotonic() + timeout_s
    while waiting:
        page = _replies(target, user, after)
        for message in page["messages"]:
            if sent := waiting.pop(message["external_id"], None):
                yield from _lines(message, page["replies"], sent)
        if time.monotonic() > deadline:
            undone = f"{len(waiting)} of {len(posted)} messages not done within {timeout_s:g} s"
            raise click.ClickException(f"{undone}: is a worker running?")
        if page["done_seq"] == after and waiting:
            time.sleep(POLL_S)
        after = page["done_seq"]


def _replies(target: Target, user: str, after: int) -> JsonObject:
    query = urlencode({"user": user, "after": after}, errors="surrogateescape")
    try:
        page: JsonObject = json.loads(_call(target, Request(f"{target.webhook}/replies?{query}")))  # noqa: S310
    except HTTPError as error:
        with error:
            why = "not now" if error.code != HTTPStatus.NOT_FOUND else "only with DEVELOPMENT=true"
        raise click.ClickException(f"accepted, but replies can be read back {why}; try --no-wait") from None
    return page


def _call(target: Target, request: Request) -> bytes:
    # No proxy of the environment stands between this terminal and its own machine.
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=ANSWER_WITHIN_S) as response:
            body: bytes = response.read()
            return body
    except HTTPError:
        raise
    except (OSError, HTTPException) as error:
        reason = f"nothing answers at {target.base_url} ({error})"
        raise click.ClickException(f"{reason}: is `onelane run` running?") from None


def _lines(message: Mapping[str, Any], replies: Sequence[Mapping[str, Any]], sent: Posted) -> Iterator[str]:
    texts = [reply["text"] for reply in replies if reply["message_id"] == message["message_id"]]
    note = f"(session {message['session_id']}, seq {message['seq']}{', duplicate' if sent.duplicate else ''})"
    for text in texts or [f"({message['state']}, no reply)"]:
        yield f"{text}   {note}"


def _receipts(posted: Sequence[Posted]) -> Iterator[str]:
    for one in sorted(posted, key=lambda one: one.seq or 0):
        if not one.refusal:
            note = "" if one.seq is None else f", seq {one.seq}{', duplicate' if one.duplicate else ''}"
            yield f"accepted   (message {one.external_id}{note})"
