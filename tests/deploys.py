"""A deploy as on dynos: releases that honcho starts from the Procfile, and a provider whose traffic flows meanwhile."""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.dev.embedded.child import descendants
from onelane.dev.embedded.redis import free_port
from onelane.dev.stack import Stack, is_ready
from onelane.dev.target import Target, sign
from tests.conftest import DEADLINE_S, ROOT, eventually
from tests.processes import environment
from tests.rows import Rows

GONE_WITHIN_S = 25.0
WORKERS = 2
USERS = 12
MESSAGES_PER_USER_MAX = 1_000
PAUSE_S = 0.03
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
"""Where the commands of the Procfile are: this interpreter's first."""
STOPPED = re.compile(r"(\w+\.\d) stopped \(rc=(-?\d+)\)")
PATIENTLY = f"from honcho import command, manager; manager.KILL_WAIT = {GONE_WITHIN_S}; command.main()"
"""Honcho, which kills what has not ended five seconds after the first; a dyno gives everybody thirty."""
EXITS = {"web.1": "0", "worker.1": "0", "worker.2": "0"}


def procfile() -> dict[str, list[str]]:
    """Return the commands that the Procfile gives each kind of process, in words."""
    lines = (line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    return {name: command.removeprefix("exec ").split() for name, command in lines}


class Release:
    """One release: the Procfile's web and its workers, in a session of its own."""

    def __init__(self, settings: Settings, folder: Path, **extra: object) -> None:
        self.port = free_port()
        no_env = folder / "env"  # instead of somebody's .env
        folder.mkdir()
        no_env.touch()
        options = ["-f", str(ROOT / "Procfile"), "-d", str(ROOT), "-e", str(no_env), "-p", str(self.port)]
        known = environment(settings, port=self.port, log_format="json", **extra)
        self.stack = Stack(folder, {**known, "PATH": PATH}, cwd=ROOT)
        command = [
            sys.executable,
            "-P",
            "-c",
            PATIENTLY,
            "start",
            *options,
            f"-cweb=1,worker={WORKERS}",
            "web",
            "worker",
        ]
        self.process = self.stack.start("honcho", command)
        self.log = self.process.log

    @property
    def is_up(self) -> bool:
        return self.log.read_text().count('"worker_started"') == WORKERS and is_ready(self.port)

    def stop(self) -> None:
        """Stop it; it has to be gone in time, all of it, and content."""
        ids = self.terminate()
        self.process.wait(GONE_WITHIN_S)
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ids))
        log = self.log.read_text()
        assert dict(STOPPED.findall(log)) == EXITS, log

    def terminate(self) -> list[int]:
        """Send SIGTERM as a dyno gets it, to every process and then once more; return their ids."""
        found = descendants(self.process.pid)
        _signal_all(found)
        eventually(lambda: "stopp" in self.log.read_text())
        _signal_all(found)
        return found


def _signal_all(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


class Traffic:
    """A provider: each user's messages one after the other, each until a web has said 2xx."""

    def __init__(self, settings: Settings, pause_s: float = PAUSE_S) -> None:
        """`pause_s` is what a user waits before the next message."""
        self._channel = settings.channels["demo"]
        self._pause_s = pause_s
        self._stopped = threading.Event()
        self.ports: list[int] = []
        """Where it posts, in turn; whoever changes it switches the router."""
        self.accepted: list[tuple[str, int]] = []

    @contextmanager
    def flowing(self, *ports: int) -> Iterator[None]:
        self.ports = [*ports]
        threads = [threading.Thread(target=self._write, args=(f"user {nr}",)) for nr in range(USERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join(DEADLINE_S)

    def await_more(self) -> None:
        """Wait until every user's traffic has gone on for a while."""
        before = len(self.accepted)
        eventually(lambda: len(self.accepted) > before + 5 * USERS)

    def _write(self, user: str) -> None:
        for nr in range(MESSAGES_PER_USER_MAX):
            delivery = Delivery(senders=(user,), external_id=f"{user}-{nr}".replace(" ", "."), text="sleep 0.02")
            if not self._deliver(delivery):
                return
            self.accepted.append((user, nr))
            self._stopped.wait(self._pause_s)

    def _deliver(self, delivery: Delivery) -> bool:
        for turn in count():
            port = self.ports[turn % len(self.ports)]
            target = Target(f"http://127.0.0.1:{port}", "demo", self._channel)
            if _status(sign(target, delivery)) == 202:
                return True
            if self._stopped.wait(PAUSE_S):
                return False
        raise AssertionError


def _status(request: Request) -> int | None:
    """Return the answer's status; None when nobody answers."""
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=5) as response:
            return response.status
    except HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return None


def check_nothing_lost_and_in_order(rows: Rows, traffic: Traffic) -> None:
    eventually(lambda: rows.waiting() == 0)
    for user in {user for user, _ in traffic.accepted}:
        inbound = rows.inbound(rows.user_of("demo", user))
        stored = [int(row.external_id.rpartition("-")[2]) for row in inbound]
        assert stored == list(range(len(stored)))
        assert {nr for name, nr in traffic.accepted if name == user} <= set(stored)
        assert {row.state for row in inbound} == {"processed"}
        assert [reply.turn_seq for reply in rows.replies(rows.user_of("demo", user))] == [row.seq for row in inbound]
    assert rows.out_of_order() == []
