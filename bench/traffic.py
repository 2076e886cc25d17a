"""Sends webhooks at a steady rate. When answers are late, later requests count from when they should have been sent."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from itertools import count
from math import ceil

from bench.checking import Sent
from bench.stack import CHANNEL, SECRET
from onelane.channels import provider_of
from onelane.channels.provider import Signed
from onelane.config import Channel

SENDERS = 24
ANSWER_S = 30.0
LEAD_S = 0.2
PATH = f"/webhooks/{CHANNEL}"


@dataclass(frozen=True)
class Request:
    """One webhook, signed beforehand."""

    message: Sent
    signed: Signed


@dataclass(frozen=True)
class Answered:
    """The answer to one webhook; times are of the monotonic clock, and `due` is when it should have been sent."""

    message: Sent
    due: float
    answered: float
    status: int

    @property
    def is_good(self) -> bool:
        """Whether it was accepted."""
        return self.status // 100 == 2  # noqa: PLR2004 - HTTP's own number

    @property
    def took_ms(self) -> float:
        """From the moment it was due."""
        return 1000 * (self.answered - self.due)


def requests(how_many: int, users: int) -> list[Request]:
    """Make webhooks of users who write in turns."""
    messages = [Sent(f"m{number}", f"user {number % users}", f"message {number}") for number in range(how_many)]
    return [Request(message, signed) for message, signed in zip(messages, signed(messages), strict=True)]


def signed(messages: Iterable[Sent]) -> Iterator[Signed]:
    """Sign each message's webhook, as of now."""
    provider = provider_of(Channel(provider="standard", secrets=(SECRET,)))
    for one in messages:
        yield provider.sign("", one.delivery)


def send(port: int, waiting: Sequence[Request], rate: float) -> list[Answered]:
    """Send each webhook when it is due, over connections that stay open."""
    began, numbers, answers = time.monotonic() + LEAD_S, count(), []

    def work() -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
        while (number := next(numbers)) < len(waiting):
            due = began + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            status = _post(connection, waiting[number].signed)
            answers.append(Answered(waiting[number].message, due, time.monotonic(), status))
        connection.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _post(connection: HTTPConnection, signed: Signed) -> int:
    try:
        connection.request("POST", PATH, signed.body, dict(signed.headers))
        response = connection.getresponse()
        response.read()
    except (OSError, HTTPException):
        connection.close()
        return 0
    return response.status


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value at or below which `part` of all values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, ceil(part * len(ordered)) - 1))] if ordered else float("nan")
