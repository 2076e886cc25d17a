"""The loop of a web process: health beside requests that hang, a deadline for whatever waits, an end when it is stuck.

It runs in a thread of the test, with an application of the test's own; real processes are in test_slow_clients.py.
"""

import gc
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from onelane import periodic
from onelane.periodic import Periodic
from onelane_web import gunicorn_settings
from onelane_web.serving import worker as serving
from onelane_web.serving.answer import WAITED_S
from onelane_web.serving.worker import LoopWorker
from tests.conftest import DEADLINE_S, LogLines, eventually

THREADS = 2
PATIENCE_S = 20.0


@dataclass
class Pages:
    """An application: what /hang answers hangs until it is let go; what it was asked is noted."""

    asked: list[str] = field(default_factory=list)
    waited_s: dict[str, float] = field(default_factory=dict)
    go: threading.Event = field(default_factory=threading.Event)
    hanging: tuple[str, ...] = ("/hang",)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.asked.append(environ["PATH_INFO"])
        self.waited_s[environ["PATH_INFO"]] = environ[WAITED_S]
        if environ["PATH_INFO"] in self.hanging:
            self.go.wait(DEADLINE_S)
        if environ["PATH_INFO"].startswith("/raise"):
            raise RuntimeError(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]


def status_of(connection: HTTPConnection) -> int:
    with connection.getresponse() as answer:
        answer.read()
        return answer.status


class Web:
    """The loop, in a thread."""

    def __init__(self, pages: Pages, **options: object) -> None:
        self.pages = pages
        config = Config()
        for name, value in {"threads": THREADS, "worker_connections": 1_000, **options}.items():
            config.set(name, value)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.loop = LoopWorker(1, os.getppid(), [listener], None, config.timeout, config, Unread())
        self.loop.wsgi = pages
        self.thread = threading.Thread(target=self._run, name="loop", daemon=True)
        self.exit_code: object = None

    def _run(self) -> None:
        try:
            self.loop.run()
        except SystemExit as end:
            self.exit_code = end.code

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def get(self, path: str) -> int:
        with self.asking(path, 1) as [connection]:
            return status_of(connection)

    def end(self) -> None:
        """Let go what hangs, and close what the end of a process closes."""
        self.loop.alive = False
        self.pages.go.set()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        for connection in (*self.loop._waiting, *self.loop._answering):
            connection.wire.close()
        self.loop._poller.close()
        self.loop._answered.close()
        self.loop.tmp.close()

    @contextmanager
    def asking(self, path: str, how_many: int) -> Iterator[list[HTTPConnection]]:
        """Ask for a page so often, and read no answer."""
        with ExitStack() as opened:
            connections = [self.connect() for _ in range(how_many)]
            for connection in connections:
                opened.callback(connection.close)
                connection.request("GET", path)
            yield connections


class Unread:
    """Gunicorn's log, of which nothing is read here: its own would stay configured."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_, **__: None


Serve = Callable[..., Web]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serve an application, with a look at everything ten times as often; afterwards let go what hangs."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:9/none")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:9")
    monkeypatch.setattr(serving, "ROUND_S", 0.1)
    monkeypatch.setattr(serving, "end_within", lambda _seconds: None)  # it would end the tests
    served: list[Web] = []

    def serve(**options: object) -> Web:
        served.append(Web(Pages(), **options))
        served[-1].thread.start()
        return served[-1]

    yield serve
    for web in served:
        web.end()


# health


def test_health_is_answered_beside_as_many_hanging_requests_as_there_are_threads(serve: Serve) -> None:
    web = serve()
    with web.asking("/hang", THREADS + 3):
        eventually(lambda: web.pages.asked.count("/hang") == THREADS)
        assert [web.get(path) for path in ("/healthz", "/readyz", "/healthz")] == [200, 200, 200]


def test_a_readiness_that_is_not_known_yet_holds_up_neither_the_other_check_nor_requests(serve: Serve) -> None:
    web = serve()
    web.pages.hanging = ("/readyz",)
    with web.asking("/readyz", THREADS + 1):
        eventually(lambda: "/readyz" in web.pages.asked)
        assert [web.get(path) for path in ("/healthz", "/page")] == [200, 200]
        assert web.pages.asked.count("/readyz") == 1, "one after the other"


def test_health_is_asked_many_times_on_one_connection(serve: Serve) -> None:
    web, times = serve(), 2_000
    with socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE_S) as wire:
        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: web\r\n\r\n" * times)
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < times:
            data = wire.recv(65_536)
            assert data
            received += data


# what is no request


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /canary HTTP/9\r\n\r\n", b"400"),
        (b"GET /canary\r\n\r\n", b"400"),
        (b"GET /" + b"canary" * 2_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nca nary: 1\r\n\r\n", b"400"),
        (b"GET /raise-canary HTTP/1.1\r\nHost: web\r\n\r\n", b"500"),
    ],
    ids=["version", "no version", "long", "header", "raises"],
)
def test_what_cannot_be_answered_is_refused_in_json_without_what_was_sent(
    serve: Serve, sent: bytes, status: bytes
) -> None:
    web = serve()
    with socket.create_connection(("127.0.0.1", web.port), PATIENCE_S) as wire:
        wire.sendall(sent)
        received = b"".join(iter(lambda: wire.recv(65_536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == status
    assert b"Content-Type: application/json" in head
    assert json.loads(body)["error"].startswith("this request cannot be answered: ")
    assert b"canary" not in received


# a request waits for a thread


def test_a_request_that_no_thread_takes_in_time_is_refused_for_now_and_never_handed_over(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    counted: list[tuple[str, int]] = []
    monkeypatch.setattr(serving, "REFUSALS", SimpleNamespace(count=lambda *what: counted.append(what)))
    monkeypatch.setattr(serving, "QUEUE_S", PATIENCE_S)
    web, late_page = serve(), "/webhooks/late"
    with web.asking("/hang", THREADS) as held:
        eventually(lambda: web.pages.asked.count("/hang") == THREADS)
        monkeypatch.setattr(serving, "QUEUE_S", 0.2)
        with web.asking(late_page, 3) as late:
            for connection in late:
                with connection.getresponse() as answer:
                    assert answer.status == 503
                    told = [answer.headers[name] for name in ("Retry-After", "Connection", "Content-Type")]
                    assert told == ["5", "close", "application/json"]
                    assert json.load(answer) == {"error": "every thread is busy: send it again in 5 s"}
        monkeypatch.setattr(serving, "QUEUE_S", PATIENCE_S)
        web.pages.go.set()
        assert [status_of(connection) for connection in held] == [200] * THREADS
        assert web.get("/page") == 200
    assert late_page not in web.pages.asked
    assert sum(line["requests"] for line in log_lines if line["event"] == "web_busy") == 3
    assert sum(requests for _, requests in counted) == 3


def test_the_application_learns_how_long_a_request_has_waited_for_a_thread(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "QUEUE_S", PATIENCE_S)
    web = serve()
    with web.asking("/hang", THREADS), web.asking("/late", 1) as [late]:
        eventually(lambda: web.pages.asked.count("/hang") == THREADS)
        eventually(lambda: web.loop._requests._queued)
        began = time.monotonic()
        eventually(lambda: time.monotonic() > began + 0.1)
        web.pages.go.set()
        assert status_of(late) == 200
    assert 0.1 < web.pages.waited_s["/late"] < DEADLINE_S
    assert web.pages.waited_s["/hang"] < DEADLINE_S


def test_what_waits_for_a_thread_is_bounded_in_bytes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HELD_MAX_BYTES", 250_000)
    monkeypatch.setattr(serving, "QUEUE_S", PATIENCE_S)
    web, body = serve(), b"x" * 100_000
    with web.asking("/hang", THREADS), ExitStack() as opened:
        eventually(lambda: web.pages.asked.count("/hang") == THREADS)
        late = [web.connect() for _ in range(4)]
        for connection in late:
            opened.callback(connection.close)
            connection.request("POST", "/late", body)
        assert [status_of(connection) for connection in late[:2]] == [503] * 2, "those that wait longest"
        web.pages.go.set()
        assert [status_of(connection) for connection in late[2:]] == [200] * 2


# a process that cannot work ends


def test_a_thread_that_hangs_ends_its_process_which_says_so_and_answers_the_request(
    serve: Serve, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "LEAVE_S", PATIENCE_S)
    web = serve(timeout=1, keepalive=30)
    watching = web.connect()
    watching.request("GET", "/healthz")
    assert status_of(watching) == 200
    with web.asking("/hang", 1) as [hung]:
        with hung.getresponse() as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        watching.request("GET", "/healthz")
        assert status_of(watching) == 503
        watching.close()
    web.thread.join(DEADLINE_S)
    assert web.exit_code == 1
    [line] = [line for line in log_lines if line["event"] == "web_stuck"]
    assert "in __call__" in "".join(frame for stack in line["stacks"].values() for frame in stack)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_died_ends_its_process(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise SystemExit

    monkeypatch.setattr("onelane_web.serving.connection.respond", die)
    monkeypatch.setattr("onelane_web.serving.connection.refuse", die)
    web = serve()
    with web.asking("/page", 1) as [unlucky]:
        assert status_of(unlucky) == 503
        web.thread.join(DEADLINE_S)
    assert web.exit_code == 1


def test_a_periodic_task_that_hangs_in_every_thread_ends_its_process_also_if_it_is_the_only_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    monkeypatch.setattr(periodic, "LIMIT_S", 0.1)
    monkeypatch.setattr(periodic, "_started", set())
    gate = threading.Event()
    task = Periodic("hopeless", lambda: gate.wait(DEADLINE_S), 0)
    task.start()
    try:
        web = serve()
        web.thread.join(DEADLINE_S)
    finally:
        task.stop()
        gate.set()
    assert web.exit_code == 1
    assert [line["task"] for line in log_lines if line["event"] == "web_hopeless"] == ["hopeless"]


def test_whoever_is_not_answered_when_the_grace_is_over_is_refused_and_not_cut_off(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "QUEUE_S", PATIENCE_S)
    web = serve(graceful_timeout=2)
    with web.asking("/hang", THREADS + 1) as connections:
        eventually(lambda: web.pages.asked.count("/hang") == THREADS and web.loop._requests._queued)
        web.loop.handle_exit(0, None)
        assert [status_of(connection) for connection in connections] == [503] * (THREADS + 1)
        web.thread.join(DEADLINE_S)
    assert web.exit_code is None


def test_the_garbage_collector_looks_no_more_through_what_was_loaded() -> None:
    try:
        gunicorn_settings.post_worker_init(None)
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
