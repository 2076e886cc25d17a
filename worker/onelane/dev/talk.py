"""What `onelane send` does: play the provider, so that a bot can be talked to from a terminal.

What is done is signed as its channel's provider would sign it and posted; the replies are read back from the endpoint
that only a development stack opens.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.error import HTTPError

import click

from onelane.channels import Signed
from onelane.deliveries import Delivery, IdentityChange, Item, Quarantined, Status
from onelane.dev.outcomes import Outcomes, Posted
from onelane.dev.played import Act, rounds, understood
from onelane.dev.target import Target, call, find_target, request
from onelane.model import JsonObject

POSTS_AT_ONCE_MAX = 32
WAIT_S = 30


def send(
    act: Act,
    *,
    channel: str | None = None,
    provider: str | None = None,
    wait: bool = True,
    timeout_s: float = WAIT_S,
) -> int:
    """Do what `act` says, print the replies in order, and return the command's exit code."""
    try:
        target = find_target(channel, provider)
        signed = rounds(act, target.provider, target.public_url)
        posted = [one for requests in signed for one in _post_all(target, requests)]
        outcomes = Outcomes(target, _partner(target, signed[-1], act.user), posted)
        for line in _receipts(one for one in posted if not (wait and one.what == "message")):
            click.echo(line)
        for line in outcomes.follow(timeout_s) if wait else ():
            click.echo(line)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    refusals = [one.refusal for one in posted if one.refusal]
    for refusal in refusals:
        click.echo(f"refused: {refusal}", err=True)
    return 1 if refusals or outcomes.dead else 0


def _partner(target: Target, requests: Sequence[Signed], user: str) -> str:
    """Return by which name the conversation is found."""
    for signed in requests:
        for delivery in understood(target.provider, target.public_url, signed).deliveries:
            return delivery.conversation or delivery.senders[0]
    return user


def _post_all(target: Target, requests: Sequence[Signed]) -> list[Posted]:
    nobody_answers = threading.Event()

    def post(signed: Signed) -> list[Posted]:
        if nobody_answers.is_set():
            raise click.ClickException("not sent, since nobody answers")
        try:
            return _post(target, signed)
        except click.ClickException:
            nobody_answers.set()  # or the others would wait as long, a few at a time
            raise

    with ThreadPoolExecutor(min(len(requests), POSTS_AT_ONCE_MAX)) as pool:
        return [one for posted in pool.map(post, requests) for one in posted]


def _post(target: Target, signed: Signed) -> list[Posted]:
    """Post a request; return what became of each message in it."""
    parsed = understood(target.provider, target.public_url, signed).items
    posted = [Posted(_id(item), _what(item)) for item in parsed]
    try:
        answer = _json_object(call(target, request(target, signed)))
    except HTTPError as error:
        with error:
            reason = error.read().decode(errors="replace").strip()
            return [replace(one, refusal=f"{error.code} {reason}") for one in posted]
    seq, duplicate = answer.get("seq"), answer.get("duplicate", False)
    return [
        replace(one, refusal=f"quarantined: {item.reason}")
        if isinstance(item, Quarantined)
        else replace(one, seq=seq, duplicate=duplicate)
        for one, item in zip(posted, parsed, strict=True)
    ]


def _id(item: Item) -> str:
    return item.external_id if isinstance(item, Delivery | IdentityChange) else ""


def _what(item: Item) -> str:
    """Name what it is; only a message is waited for."""
    if isinstance(item, Delivery):
        return item.event or str(item.kind)
    if isinstance(item, Status):
        return f"status {item.state}"
    return "change of id" if isinstance(item, IdentityChange) else type(item).__name__.lower()


def _json_object(answer: bytes) -> JsonObject:
    """Read an answer that is a JSON object; of any other, as some providers want it, there is nothing to read."""
    try:
        value = json.loads(answer)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _receipts(posted: Iterable[Posted]) -> Iterator[str]:
    for one in sorted(posted, key=lambda one: one.seq or 0):
        if not one.refusal:
            note = "" if one.seq is None else f", seq {one.seq}{', duplicate' if one.duplicate else ''}"
            yield f"accepted   ({f'{one.what} {one.external_id}'.strip()}{note})"
