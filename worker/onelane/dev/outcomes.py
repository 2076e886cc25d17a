"""What becomes of messages: their replies and failures, as the endpoint of a development stack tells them."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request

import click

from onelane.dev.target import Target, call
from onelane.model import JsonObject

POLL_S = 0.05


@dataclass(frozen=True)
class Posted:
    """What the service answered to one message, or to something that has no replies."""

    external_id: str
    what: str = "message"
    refusal: str | None = None
    seq: int | None = None
    """The message's number, if the provider's kind of answer tells it."""
    duplicate: bool = False


class Outcomes:
    """What becomes of messages."""

    def __init__(self, target: Target, user: str, posted: Sequence[Posted]) -> None:
        self.dead = 0
        """How many were given up."""
        self._target = target
        self._user = user
        messages = [one for one in posted if one.what == "message"]
        self._sent = len(messages)
        self._waiting = {one.external_id: one for one in messages if not one.refusal}
        # A provider whose answer has no number: look through the user's messages from the first on.
        self._after = min((one.seq or 1 for one in self._waiting.values()), default=1) - 1
        self._told = set[str]()
        """The failures that were told."""

    def follow(self, timeout_s: float) -> Iterator[str]:
        """Read what became of the messages, in their order, until all are done; tell each failure as it is seen."""
        deadline = time.monotonic() + timeout_s
        while self._waiting:
            page = _replies(self._target, self._user, self._after)
            for message in page["messages"]:
                if sent := self._waiting.pop(message["external_id"], None):
                    self.dead += message["state"] == "dead"
                    yield from _lines(message, page["replies"], sent)
            for message in page["failing"]:
                self._tell(message)
            if time.monotonic() > deadline:
                undone = f"{len(self._waiting)} of {self._sent} messages not done within {timeout_s:g} s"
                raise click.ClickException(undone if self._told else f"{undone}: is a worker running?")
            if page["done_seq"] == self._after and self._waiting:
                time.sleep(POLL_S)
            self._after = page["done_seq"]

    def _tell(self, message: Mapping[str, Any]) -> None:
        """Say on standard error that one of the messages failed, and is tried again."""
        attempts, laters = message["attempts"], message["laters"]
        what = f"attempt {attempts} failed" if attempts else f"put off, {laters} so far"
        line = f"{what}: {_last_line(message['last_error'])}"
        if message["external_id"] in self._waiting and line not in self._told:
            self._told.add(line)
            click.echo(line, err=True)


def _last_line(error: str) -> str:
    """Return what an error says; above it stands where it arose."""
    return error.strip().rpartition("\n")[2]


def _replies(target: Target, user: str, after: int) -> JsonObject:
    query = urlencode({"user": user, "after": after}, errors="surrogateescape")
    try:
        asked = Request(f"{target.webhook}/replies?{query}")  # noqa: S310 - always http
        page: JsonObject = json.loads(call(target, asked))
    except HTTPError as error:
        with error:
            why = "not now" if error.code != HTTPStatus.NOT_FOUND else "only with DEVELOPMENT=true"
        raise click.ClickException(f"accepted, but replies can be read back {why}; try --no-wait") from None
    return page


def _lines(message: Mapping[str, Any], replies: Sequence[Mapping[str, Any]], sent: Posted) -> Iterator[str]:
    texts = [_text(reply) for reply in replies if reply["message_id"] == message["message_id"]]
    note = f"(session {message['session_id']}, seq {message['seq']}{', duplicate' if sent.duplicate else ''})"
    died_of = f": {_last_line(message['last_error'])}" if message["state"] == "dead" else ""
    for text in texts or [f"({message['state']}, no reply{died_of})"]:
        yield f"{text}   {note}"


def _text(reply: Mapping[str, Any]) -> str:
    """Return what a reply says; of one that the provider refused also why."""
    return f"{reply['text']}   (failed: {reply['failure']})" if reply["state"] == "failed" else str(reply["text"])
