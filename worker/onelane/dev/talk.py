"""What `onelane send` does: play the provider, so that a bot can be talked to from a terminal.

A message is signed as its channel's provider would sign it and posted; its replies are read back from the
endpoint that only a development stack opens.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from uuid import uuid4

import click
from pydantic import TypeAdapter, ValidationError

from onelane.channels.fields import ExternalId
from onelane.deliveries import Delivery
from onelane.dev.outcomes import Outcomes, Posted
from onelane.dev.target import Target, call, find_target, sign
from onelane.model import JsonObject

POSTS_AT_ONCE_MAX = 32
WAIT_S = 30


def send(
    user: str,
    text: str,
    *,
    channel: str | None = None,
    button: str | None = None,
    message_id: str | None = None,
    count: int = 1,
    wait: bool = True,
    timeout_s: float = WAIT_S,
) -> int:
    """Send `count` messages at once, print the replies in order, and return the command's exit code."""
    try:
        target = find_target(channel)
        posted = _post_all(target, _numbered(_delivery(user, text, button, message_id), count))
        outcomes = Outcomes(target, user, posted)
        for line in outcomes.follow(timeout_s) if wait else _receipts(posted):
            click.echo(line)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    refusals = [one.refusal for one in posted if one.refusal]
    for refusal in refusals:
        click.echo(f"refused: {refusal}", err=True)
    return 1 if refusals or outcomes.dead else 0


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
    nobody_answers = threading.Event()

    def post(delivery: Delivery) -> Posted:
        if nobody_answers.is_set():
            raise click.ClickException("not sent, since nobody answers")
        try:
            return _post(target, delivery)
        except click.ClickException:
            nobody_answers.set()  # or the others would wait as long, a few at a time
            raise

    with ThreadPoolExecutor(min(len(deliveries), POSTS_AT_ONCE_MAX)) as pool:
        return list(pool.map(post, deliveries))


def _post(target: Target, delivery: Delivery) -> Posted:
    try:
        answer = call(target, sign(target, delivery))
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


def _receipts(posted: Sequence[Posted]) -> Iterator[str]:
    for one in sorted(posted, key=lambda one: one.seq or 0):
        if not one.refusal:
            note = "" if one.seq is None else f", seq {one.seq}{', duplicate' if one.duplicate else ''}"
            yield f"accepted   (message {one.external_id}{note})"
