"""Web servers beside slow clients: `python -m bench.web_servers [NAME …]`; docs/DESIGN.md has the table.

Each serves the same application, with four threads and one process where it has such. Peers that are not installed
(waitress, granian, gevent) are left out. In brackets is how many slow clients there are.
"""

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from itertools import count

from click import echo

from bench import traffic
from bench.costs import cpu_s
from bench.slow_clients import PLAIN, SlowClients
from bench.stack import Stack, fresh
from bench.traffic import quantile
from onelane.dev.embedded.redis import free_port
from onelane.dev.stack import HOST, PYTHON, is_ready, web_command
from onelane.errors import OnelaneError

APPLICATION = "bench.peers.odd_pages:app"
GUNICORN = ("--workers", "1")
CASES = (
    ("silent", 0),
    ("slow headers", 64),
    ("slow bodies", 64),
    ("slow readers", 64),
    ("silent", 200),
    ("idle", 1_000),
)
WARM_UP = 100
SECONDS = 3
START_S = 30
STOP_S = 1
SENDERS = 64
PATIENCE_S = 2.0
USERS = 50


@dataclass(frozen=True)
class Load:
    """So many requests a second."""

    per_s: int
    is_webhook: bool
    """Signed webhooks; else a page that costs next to nothing but the server."""


LOADS = (Load(200, is_webhook=True), Load(1_000, is_webhook=False))


@dataclass(frozen=True)
class Outcome:
    """What became of a load."""

    sent: int
    took_ms: Sequence[float]
    cpu_ms: float

    def __str__(self) -> str:
        lost = self.sent - len(self.took_ms)
        p50, p99 = quantile(self.took_ms, 0.5), quantile(self.took_ms, 0.99)
        return f"p50 {p50:7.1f}  p99 {p99:7.1f}  unanswered {lost:5d} of {self.sent}  CPU {self.cpu_ms:.2f} ms"


def commands(port: int) -> dict[str, list[str]]:
    """Name the servers and how each is started."""
    kinds = {"sync": 1, "gthread": 4, "gevent": 1}  # with more than one thread, gunicorn makes sync to gthread
    known = {
        **{
            f"gunicorn {kind}": web_command(port, APPLICATION, *GUNICORN, "-k", kind, "--threads", str(threads))
            for kind, threads in kinds.items()
        },
        "waitress": [
            *(*PYTHON, "waitress", f"--listen={HOST}:{port}", "--threads=4"),
            *("--connection-limit=4000", "--asyncore-use-poll", APPLICATION),
        ],
        "granian": [
            *(*PYTHON, "granian", "--interface", "wsgi", "--blocking-threads", "4", "--host", HOST),
            *("--port", str(port), "--http1-header-read-timeout", "10000", APPLICATION),
        ],
        "onelane": web_command(port, APPLICATION, *GUNICORN),
    }
    needs = {"gunicorn gevent": "gevent", "waitress": "waitress", "granian": "granian"}
    return {name: command for name, command in known.items() if find_spec(needs.get(name, "gunicorn"))}


def measure(stack: Stack, name: str, kind: str, how_many: int) -> None:
    """Print a line for each load, beside so many slow clients of a kind."""
    port = free_port()
    web = stack.start(name.replace(" ", "-"), commands(port)[name], may_end=True)
    stack.wait_for(lambda: is_ready(port), "the web's start", START_S)
    send(port, WARM_UP, LOADS[0], [web.pid])
    for load in LOADS:
        what = f"{load.per_s:5d}/s {'webhooks' if load.is_webhook else PLAIN}"
        with SlowClients(port, kind, how_many) as slow:
            outcome = send(port, load.per_s * SECONDS, load, [web.pid])
            echo(f"{name:17} {kind:12} ({how_many:4d})  {what}  {outcome}  cut {slow.cut}")
    web.stop(STOP_S)


def send(port: int, how_many: int, load: Load, pids: Sequence[int]) -> Outcome:
    """Send at a steady rate. What is not answered soon after it was due, or could not be sent by then, has no time."""
    numbers, took, waiting = count(), [], traffic.requests(how_many if load.is_webhook else 0, USERS)
    began, cpu = time.monotonic() + 0.2, cpu_s(pids)
    gives_up = began + how_many / load.per_s + PATIENCE_S

    def work() -> None:
        connection = HTTPConnection(HOST, port, timeout=PATIENCE_S)
        while (number := next(numbers)) < how_many and time.monotonic() < gives_up:
            due = began + number / load.per_s
            time.sleep(max(0.0, due - time.monotonic()))
            if _ask(connection, waiting[number] if load.is_webhook else None):
                took.append(1000 * (time.monotonic() - due))
        connection.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Outcome(how_many, took, 1000 * (cpu_s(pids) - cpu) / how_many)


def _ask(connection: HTTPConnection, webhook: traffic.Request | None) -> bool:
    try:
        if webhook:
            connection.request("POST", traffic.PATH, webhook.signed.body, dict(webhook.signed.headers))
        else:
            connection.request("GET", PLAIN)
        response = connection.getresponse()
        response.read()
    except (OSError, HTTPException):
        connection.close()
        return False
    return response.status // 100 == 2  # noqa: PLR2004 - HTTP's own number


def main() -> None:
    """Measure the servers that are named, or all, in turn beside each kind of slow clients."""
    with fresh() as stack:
        for kind, how_many in CASES:
            for name in sys.argv[1:] or commands(0):
                try:
                    measure(stack, name, kind, how_many)
                except OnelaneError:
                    echo(f"{name:17} did not start")


if __name__ == "__main__":
    main()
