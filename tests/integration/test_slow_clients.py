"""Clients who send or read slowly hold nobody up, and do not stay."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from bench.slow_clients import HANGING, SlowClients
from bench.traffic import quantile
from onelane.bootstrap import Services
from onelane.channels import provider_of
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.dev.embedded.child import Child, children_of
from onelane.dev.embedded.redis import free_port
from onelane.dev.stack import Stack, is_ready, web_command
from onelane_web.serving.worker import REQUEST_S
from tests.conftest import ROOT, eventually
from tests.processes import environment
from tests.rows import Rows

WEB = "bench.peers.odd_pages:app"
EVERY_KIND = {"idle": 1_000, "silent": 200, "slow headers": 64, "slow bodies": 64, "slow readers": 64}
WEBHOOKS = 50
ANSWER_S = 10.0
GONE_WITHIN_S = 25.0


class Web:
    """The web as the Procfile starts it, with one page more, whose answer is large."""

    def __init__(self, port: int, process: Child, settings: Settings) -> None:
        self.port = port
        self.process = process
        self._channel = settings.channels["demo"]

    def request(self, number: int) -> bytes:
        """Format a signed webhook."""
        delivery = Delivery(senders=("alice",), external_id=f"m{number}", text="hello")
        signed = provider_of(self._channel).sign("", delivery)
        headers = {**signed.headers, "Host": "web", "Content-Length": str(len(signed.body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST /webhooks/demo HTTP/1.1\r\n{head}\r\n".encode() + signed.body

    def connect(self, within_s: float = ANSWER_S) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=within_s)

    def terminate(self) -> None:
        """Send SIGTERM as a dyno gets it, to every process."""
        for pid in [self.process.pid, *children_of(self.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def has_ended_when_asked_again(self) -> bool:
        self.terminate()
        return not self.process.is_running

    def is_listening(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return False
        return True

    def status(self, request: bytes, within_s: float = ANSWER_S) -> int:
        with self.connect(within_s) as wire:
            wire.sendall(request)
            return status_of(wire)

    def get(self, path: str) -> int:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        connection.request("GET", path)
        status = connection.getresponse().status
        connection.close()
        return status


def status_of(wire: socket.socket) -> int:
    """Read one answer, the first bytes of it at least."""
    return int(wire.recv(65_536).split(maxsplit=2)[1])


@contextmanager
def serving(settings: Settings, folder: Path, *options: str, application: str = WEB, **extra: object) -> Iterator[Web]:
    port = free_port()
    with Stack(folder, environment(settings, **extra), cwd=ROOT) as stack:
        process = stack.start("web", web_command(port, application, *options), may_end=True)
        stack.await_web(port)
        yield Web(port, process, settings)


@pytest.fixture
def web(settings: Settings, services: Services, tmp_path: Path) -> Iterator[Web]:
    with serving(settings, tmp_path) as web:
        yield web


def test_signed_webhooks_are_answered_beside_slow_clients_of_every_kind(web: Web, rows: Rows) -> None:
    took_s = []
    with ExitStack() as all_kinds:
        for kind, how_many in EVERY_KIND.items():
            all_kinds.enter_context(SlowClients(web.port, kind, how_many))
        for number in range(WEBHOOKS):
            began = time.monotonic()
            assert web.status(web.request(number)) == 202
            took_s.append(time.monotonic() - began)
        assert web.get("/healthz") == 200
    assert len(rows.accepted()) == WEBHOOKS
    print(f"p99 {1_000 * quantile(took_s, 0.99):.0f} ms")  # noqa: T201 - what is promised is 1 s, on an idle machine


@pytest.mark.slow
def test_clients_who_send_or_read_too_slowly_are_cut(web: Web) -> None:
    with ExitStack() as all_kinds:
        slow = [
            all_kinds.enter_context(SlowClients(web.port, kind, 64))
            for kind in ("slow headers", "slow bodies", "slow readers")
        ]
        eventually(lambda: all(clients.cut == 64 for clients in slow))
        assert web.get("/healthz") == 200


@pytest.mark.slow
def test_a_web_that_is_asked_to_stop_answers_whom_it_has_heard_and_ends_in_time(web: Web, rows: Rows) -> None:
    request = web.request(1)
    with SlowClients(web.port, "silent", 64), SlowClients(web.port, "idle", 64), web.connect() as wire:
        wire.sendall(request[:-5])
        assert web.get("/healthz") == 200  # the connections above were accepted before this one
        began = time.monotonic()
        for _ in range(3):
            web.terminate()
        eventually(lambda: not web.is_listening())
        wire.sendall(request[-5:])
        answer = wire.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 202 ")
        assert b"Connection: close" in answer
        web.process.wait(GONE_WITHIN_S)
    assert web.process.exit_code == 0
    assert time.monotonic() - began < GONE_WITHIN_S
    assert len(rows.accepted()) == 1


@pytest.mark.slow
def test_more_connections_than_are_allowed_make_room_for_new_ones(
    settings: Settings, services: Services, tmp_path: Path
) -> None:
    with (
        serving(settings, tmp_path, "--worker-connections", "50") as web,
        SlowClients(web.port, "silent", 200) as silent,
        SlowClients(web.port, "slow headers", 40),
    ):
        for number in range(WEBHOOKS):
            assert web.status(web.request(number)) == 202
        assert silent.cut >= 150


@pytest.mark.slow
def test_requests_that_are_not_whole_hold_a_bounded_amount_of_memory(web: Web) -> None:
    head = b"POST /webhooks/demo HTTP/1.1\r\nHost: web\r\nContent-Length: 3000000\r\n\r\n"
    began = time.monotonic()
    with ExitStack() as opened:
        wires = [opened.enter_context(web.connect()) for _ in range(30)]
        for wire in wires:
            wire.sendall(head + b"x" * 2_900_000)
        assert status_of(wires[0]) == 408
        assert time.monotonic() - began < REQUEST_S, "before its time was over"
        assert web.status(web.request(1)) == 202


@pytest.mark.slow
def test_slow_clients_do_not_keep_a_web_that_is_asked_to_stop_again_and_again(web: Web) -> None:
    with ExitStack() as all_kinds:
        for kind in EVERY_KIND:
            all_kinds.enter_context(SlowClients(web.port, kind, 64))
        eventually(web.has_ended_when_asked_again, GONE_WITHIN_S, every_s=1.0)
    assert web.process.exit_code == 0


@pytest.mark.slow
def test_a_web_process_with_a_thread_that_hangs_is_replaced_and_names_where_it_hung(
    settings: Settings, services: Services, tmp_path: Path
) -> None:
    with serving(settings, tmp_path, "--timeout", "2") as web:
        [first] = children_of(web.process.pid)
        with web.connect() as wire:
            wire.sendall(f"GET {HANGING} HTTP/1.1\r\nHost: web\r\n\r\n".encode())
            eventually(lambda: "web_stuck" in web.process.log.read_text())
            eventually(lambda: first not in children_of(web.process.pid) and is_ready(web.port))
    assert "odd_pages.py" in web.process.log.read_text()


@pytest.mark.slow
def test_a_web_process_that_hangs_as_it_starts_or_whose_loop_is_blocked_is_replaced_and_names_where(
    settings: Settings, tmp_path: Path
) -> None:
    hasty = ("--worker-class", "tests.hasty.HastyWorker", "--timeout", "2")
    with serving(
        settings, tmp_path, *hasty, application="tests.hasty:load()", hangs_once=tmp_path / "been here"
    ) as web:
        assert "in load" in web.process.log.read_text()
        with web.connect() as wire:
            wire.sendall(b"GET /healthz?block HTTP/1.1\r\nHost: web\r\n\r\n")
            eventually(lambda: "in answer" in web.process.log.read_text())
        eventually(lambda: is_ready(web.port))


@pytest.mark.slow
def test_a_web_that_waits_for_silent_clients_in_its_threads_fails_the_test_above(
    settings: Settings, services: Services, tmp_path: Path
) -> None:
    with (
        serving(settings, tmp_path, "--worker-class", "gthread") as web,
        SlowClients(web.port, "silent", EVERY_KIND["silent"]),
        pytest.raises(TimeoutError),
    ):
        web.status(web.request(1), within_s=2.0)
