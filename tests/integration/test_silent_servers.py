"""Every command ends in time when a server accepts and never answers, and says in one line which it is."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from onelane.cli import onelane
from onelane.config import Settings
from onelane.dev.embedded.child import Child
from onelane.dev.target import ANSWER_WITHIN_S
from tests.conftest import DEADLINE_S, ROOT, Accept, eventually
from tests.processes import environment, worker_process
from tests.proxy import Proxy
from tests.rows import Rows

USER = "demo:alice"
ENDS_WITHIN_S = 45
BUSY_S = 45
"""What a busy machine may add."""
AT_ONCE = 4
COMMANDS: dict[str, tuple[str, ...]] = {
    "channel open": ("demo",),
    "dead drop": ("00000000-0000-0000-0000-000000000000",),
    "dead list": (),
    "dead retry": ("--all",),
    "doctor": (),
    "lane pause": (USER,),
    "lane redrive": (USER,),
    "lane resume": (USER,),
    "lane show": (USER,),
    "lanes": (),
    "migrate": (),
    "quarantine drop": ("00000000-0000-0000-0000-000000000000", "--yes"),
    "quarantine list": (),
    "quarantine replay": ("--all",),
    "quarantine show": ("00000000-0000-0000-0000-000000000000",),
    "replies": (),
    "reply drop": ("00000000-0000-0000-0000-000000000000",),
    "reply resend": ("00000000-0000-0000-0000-000000000000", "--yes"),
    "reply settle": ("00000000-0000-0000-0000-000000000000", "sent"),
    "reply show": ("00000000-0000-0000-0000-000000000000",),
    "session end": (USER,),
    "session escalate": (USER,),
    "session fit-time": (USER,),
    "session hand-back": (USER,),
    "session show": (USER,),
    "user confirm": (USER,),
    "user export": (USER,),
    "user forget": (USER, "--yes"),
    "user merge": (USER, "demo:bob"),
    "user opt-in": (USER,),
    "user show": (USER,),
}
WITHOUT_POSTGRES = {"send": ("hello", "--user", "alice")}
NOT_HERE = {"run", "incident", "worker"} | {"init", "ops hash", "channel check"}
"""They start their own servers, or wait for servers until they are told to end, as the worker does; or need none."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    output: str
    seconds: float


@pytest.fixture
def silent() -> Iterator[int]:
    """Listen without ever answering; the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def ours(settings: Settings, tmp_path: Path, accept: Accept) -> dict[str, str]:
    accept("alice")
    return {**environment(settings), "ONELANE_DATA": str(tmp_path / "none")}


def leaves(group: click.Group, *above: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, *above, name)
        else:
            yield " ".join((*above, name))


def run(name: str, arguments: tuple[str, ...], variables: dict[str, str]) -> Ended:
    began = time.monotonic()
    command = [sys.executable, "-P", "-m", "onelane", *name.split(), *arguments]
    done = subprocess.run(
        command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=5 * ENDS_WITHIN_S, check=False
    )
    return Ended(done.returncode, done.stdout + done.stderr, time.monotonic() - began)


def run_all(commands: Mapping[str, tuple[str, ...]], variables: dict[str, str]) -> dict[str, Ended]:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        ended = threads.map(lambda name: run(name, commands[name], variables), commands)
        return dict(zip(commands, ended, strict=True))


def test_every_command_is_tried() -> None:
    assert set(leaves(onelane)) == {*COMMANDS, *WITHOUT_POSTGRES, *NOT_HERE}


@pytest.mark.slow
def test_a_silent_postgres_ends_every_command_in_time_and_is_named(ours: dict[str, str], silent: int) -> None:
    ended = run_all(COMMANDS, {**ours, "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{silent}/d"})
    for name, one in ended.items():
        assert one.code == 1, (name, one)
        assert one.seconds < ENDS_WITHIN_S + BUSY_S, (name, one)
        assert "Postgres" in one.output, (name, one)
        assert "Traceback" not in one.output, (name, one)
        named = [line for line in one.output.splitlines() if "Postgres" in line]
        assert name == "doctor" or named == [one.output.splitlines()[-1]], (name, one)


@pytest.mark.slow
def test_a_silent_redis_ends_every_command_in_time_and_is_named_where_it_is_needed(
    ours: dict[str, str], silent: int
) -> None:
    ended = run_all(COMMANDS, {**ours, "REDIS_URL": f"redis://127.0.0.1:{silent}/0"})
    for name, one in ended.items():
        assert one.seconds < ENDS_WITHIN_S + BUSY_S, (name, one)
        assert "Traceback" not in one.output, (name, one)
    for name in ("doctor", "lanes", "lane show", "lane pause", "lane resume"):
        assert "Redis" in ended[name].output, (name, ended[name])
    assert ended["lanes"].code == ended["doctor"].code == 1


@pytest.mark.slow
def test_a_silent_web_ends_send_in_time_and_many_messages_wait_no_longer_than_one(
    ours: dict[str, str], silent: int
) -> None:
    many = {"send": (*WITHOUT_POSTGRES["send"], "--count=500", "--timeout=1")}
    [ended] = run_all(many, {**ours, "PORT": str(silent)}).values()
    assert ended.code == 1
    assert ended.seconds < ANSWER_WITHIN_S + BUSY_S / 2
    assert f"127.0.0.1:{silent}" in ended.output


@pytest.mark.slow
@pytest.mark.parametrize("server", ["redis_url", "database_url"])
def test_a_worker_started_beside_a_silent_server_says_so_goes_on_trying_and_ends_when_it_is_asked_to(
    settings: Settings, accept: Accept, rows: Rows, server: str, tmp_path: Path
) -> None:
    accept("alice")
    with Proxy(getattr(settings, server)) as proxy:
        log = tmp_path / "worker.log"
        with worker_process(settings.model_copy(update={server: proxy.url}), log=log, log_format="json") as process:
            with proxy.silencing():
                eventually(lambda: "worker_waits" in log.read_text(encoding="utf-8"))
            eventually(lambda: rows.answered() == 1)
            ended_with(process, 0)
        with proxy.silencing(), worker_process(settings.model_copy(update={server: proxy.url}), log=log) as process:
            eventually(lambda: "worker_waits" in log.read_text(encoding="utf-8"))
            ended_with(process, 0)


def ended_with(process: Child, code: int) -> None:
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(DEADLINE_S) == code
