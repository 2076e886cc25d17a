"""Delivers one message, or a person's new name, once, as its channel's provider would, and notes what became of it."""

import json
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from select import select
from typing import NamedTuple
from urllib.parse import urlsplit

from onelane.channels import Provider, providers
from onelane.config import Channel
from onelane.deliveries import Delivery, IdentityChange, Item, Kind
from tests.chaos.history import Event, Recorder
from tests.chaos.traffic.plan import Post, User
from tests.chaos.traffic.speech import CANARY

POST_TIMEOUT_S = 4.0


class Answer(NamedTuple):
    """What the service said to one try."""

    status: int
    """0: nothing."""
    body: bytes = b""
    why: str = ""

    @property
    def is_accepted(self) -> bool:
        """Whether the service has the message."""
        return self.status // 100 == 2

    @property
    def is_refused(self) -> bool:
        """Whether it never will: the harness sent nonsense."""
        return self.status // 100 == 4 and self.status != HTTPStatus.TOO_MANY_REQUESTS


class Postman:
    """Posts over connections that each of its threads keeps to each web."""

    def __init__(self, channels: Mapping[str, Channel], webs: Sequence[str], recorder: Recorder) -> None:
        self._channels = channels
        self._doors: Mapping[str, Provider] = providers(channels)
        self._webs = tuple(webs)
        self._recorder = recorder
        self._started_at = datetime.now(UTC)
        self._own = threading.local()

    def deliver(self, user: User, post: Post, attempt: int) -> tuple[Answer, int]:
        """Post a message; return the answer, and the number it got, as far as that is told (else 0)."""
        nr = (post.web + attempt) % len(self._webs)
        web = self._webs[nr]
        names = {"sender": user.sender, "senders": user.names(post)}
        message = {**names, "external_id": post.external_id, "text": post.text}
        this = {"delivery": post.delivery, "attempt": attempt}
        self._recorder.note("send", **this, web=f"web-{nr + 1}", channel=user.channel, messages=[message])
        answer = self._post(web, user, self._delivery(user, post))
        accepted = _accepted(answer)
        if answer.is_accepted:
            self._recorder.note("ack", **this, status=answer.status, accepted=accepted)
        else:
            self._recorder.note("no_ack", **this, why=answer.why or f"{answer.status} {answer.body[:200]!r}")
        return answer, max((one["seq"] for one in accepted), default=0)

    def rename(self, user: User, nr: int, attempt: int) -> Answer:
        """Tell that somebody has the next scoped id."""
        names = user.scoped(nr)
        self._recorder.note("rename", channel=user.channel, sender=user.sender, names=names)
        change = IdentityChange(
            senders=(user.sender, *user.scoped(nr - 1)), adds=names, external_id=f"u{user.nr:03d}.renamed.{nr}"
        )
        return self._post(self._webs[(nr + attempt) % len(self._webs)], user, change)

    def echo(self, user: User, nr: int, attempt: int) -> Answer:
        """Tell that a colleague has written to somebody."""
        said = Delivery(
            senders=(user.sender,), external_id=echo_id(user, nr), text=f"{CANARY} {echo_id(user, nr)}", kind=Kind.ECHO
        )
        return self._post(self._webs[(nr + attempt) % len(self._webs)], user, said)

    def get(self, web: int, path: str) -> Answer:
        """Read a page of the service."""
        return self._ask(self._webs[web % len(self._webs)], "GET", path, None, {})

    def _delivery(self, user: User, post: Post) -> Delivery:
        return Delivery(
            senders=user.names(post),
            external_id=post.external_id,
            text=post.text,
            sent_at=self._started_at + timedelta(seconds=post.written_at),
        )

    def _post(self, web: str, user: User, item: Item) -> Answer:
        path = f"/webhooks/{user.channel}"
        public = self._channels[user.channel].public_url or web
        signed = self._doors[user.channel].sign(public.rstrip("/") + path, item)
        return self._ask(web, "POST", path, signed.body, signed.headers)

    def _ask(self, web: str, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        connection = self._connection(web)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return Answer(response.status, response.read())
        except (OSError, HTTPException) as error:
            connection.close()  # the next request opens it again
            return Answer(0, why=type(error).__name__)

    def _connection(self, web: str) -> HTTPConnection:
        connections: dict[str, HTTPConnection] = vars(self._own)
        if web not in connections:
            where = urlsplit(web)
            connections[web] = HTTPConnection(where.hostname or "", where.port, timeout=POST_TIMEOUT_S)
        elif _is_closed(connections[web]):
            connections[web].close()
        return connections[web]


def _is_closed(connection: HTTPConnection) -> bool:
    """Whether the web has closed it since its last answer, for instance at a deploy: clients look before they send."""
    return connection.sock is not None and bool(select([connection.sock], [], [], 0)[0])


def _accepted(answer: Answer) -> list[Event]:
    """Read what the answer tells; that of some channels is empty."""
    if not (answer.is_accepted and answer.body.startswith(b"{")):
        return []
    told = json.loads(answer.body)
    return [{name: told[name] for name in ("user_id", "message_id", "seq", "duplicate")}]


def echo_id(user: User, nr: int) -> str:
    """Name what a colleague has written to somebody."""
    return f"{user.mark}echo.{nr}"


def backoff_s(attempt: int) -> float:
    """Wait longer after every failure, up to a bound."""
    return min(2.0, 0.1 * 2**attempt)
