"""A deploy on a plain machine: the commands of the systemd units, stopped and started again as systemd does it."""

import os
import shlex
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.dev.embedded.child import Child, descendants
from onelane.dev.embedded.redis import free_port
from onelane.dev.stack import Stack, is_ready
from tests.conftest import DEADLINE_S, ROOT, eventually
from tests.deploys import Traffic, check_nothing_lost_and_in_order
from tests.processes import environment
from tests.rows import Rows
from tests.systemd import WEB, WORKER, service


class Unit:
    """One unit: its commands, and its processes, which are signalled all together."""

    def __init__(self, name: str, unit: str, stack: Stack) -> None:
        self._name = name
        self._said = service(unit)
        self._stack = stack
        self._child: Child | None = None
        self.restarts = 0

    def start(self) -> None:
        """Start the process; one of `Type=notify` is awaited."""
        if self._said["Type"] != "notify":
            self._child = self._started()
            return
        with TemporaryDirectory() as folder, closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as notified:
            notified.bind(f"{folder}/notify")
            notified.settimeout(DEADLINE_S)
            self._child = self._started(NOTIFY_SOCKET=f"{folder}/notify")
            assert b"READY=1" in notified.recv(4_096)

    def _started(self, **more: str) -> Child:
        command = shlex.split(self._said["ExecStart"])
        return self._stack.start(f"{self._name}-{self.restarts}", command, more, cwd=self._stack.folder, may_end=True)

    def restart(self) -> None:
        """Stop every process in the time that the unit has, then start it again."""
        assert self._child is not None
        pids = [self._child.pid, *descendants(self._child.pid)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        assert self._child.wait(float(self._said["TimeoutStopSec"])) == 0, self._child.last_lines()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        self.restarts += 1
        self.start()


@pytest.fixture
def stack(settings: Settings, services: Services, tmp_path: Path) -> Iterator[Stack]:
    changed = settings.model_copy(update={"shutdown_grace_s": 4.0, "handler": "tests.bots:handle"})
    variables = environment(changed, port=free_port(), log_format="json")
    folder = tmp_path / "units"
    folder.mkdir()
    with Stack(folder, variables, cwd=ROOT) as stack:
        yield stack


@pytest.mark.slow
def test_a_deploy_on_the_units_under_traffic_loses_nothing_and_reorders_nothing(
    stack: Stack, settings: Settings, services: Services
) -> None:
    port = int(stack.environment["PORT"])
    units = [Unit("worker-1", WORKER, stack), Unit("web", WEB, stack)]
    for unit in units:
        unit.start()
    eventually(lambda: is_ready(port))
    traffic = Traffic(settings, pause_s=0.2)
    with traffic.flowing(port):
        traffic.await_more()
        for unit in units:
            unit.restart()
            traffic.await_more()
    check_nothing_lost_and_in_order(Rows(services.database), traffic)
