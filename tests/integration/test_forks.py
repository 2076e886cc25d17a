"""A handler may fork. Its child never becomes a second worker, and holds none of the worker's connections."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from tests.conftest import Accept, eventually
from tests.processes import worker_process
from tests.rows import Rows

HANDLER = "tests.forkers:handle"
ENDS = {
    "return": "ended with 0",
    "raise": "ended with 1",
    "exit 3": "ended with 3",
    "exit-well": "ended with 0",
    "exit-text why": "ended with 1",
    "interrupt": "ended with 1",
    "read": "ended with 1",
    "async return": "ended with 0",
    "async raise": "ended with 1",
    "async exit 3": "ended with 3",
    "async await": "ended with 1",
}


IN_THE_MAKING = """
import os, socket, threading, time
from onelane import forks

def make():
    with forks.making_a_connection():
        connection = socket.socket()
        begun.set()
        time.sleep(0.3)
        forks.keep_from_children(connection)
        made.append(connection)
    ended.wait()

forks.guard()
made, begun, ended = [], threading.Event(), threading.Event()
threading.Thread(target=make).start()
begun.wait()
if (child := os.fork()) == 0:
    with forks.making_a_connection():  # a child may make its own
        links = [os.readlink(f"/proc/self/fd/{n}") for n in range(3, 10) if os.path.exists(f"/proc/self/fd/{n}")]
        os._exit(sum(link.startswith("socket:") for link in links))
with forks.making_a_connection():
    ended.set()
print(len(made), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Prints how many connections were made as it forked, and how many its child has."""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """What the handlers' processes note, each line with its process."""
    path = tmp_path / "notes"
    path.touch()
    return path


def test_a_forked_child_ends_where_it_would_leave_the_handler_and_commits_nothing(
    rows: Rows, services: Services, settings: Settings, accept: Accept, notes: Path
) -> None:
    bystander = accept("bystander", "async bystand")
    forked = {text: accept(text, text) for text in ENDS}
    with worker_process(settings, "--slots=16", handler=HANDLER, forker_notes=notes) as worker:
        for accepted in (*forked.values(), bystander):
            eventually(partial(rows.is_settled, accepted.user_id))
        assert {text: rows.texts(accepted.user_id) for text, accepted in forked.items()} == {
            text: [end] for text, end in ENDS.items()
        }
        assert notes.read_text() == f"{worker.pid} a bystander went on\n"


def test_a_forked_child_has_no_connection_of_the_worker_and_obeys_sigterm(
    rows: Rows, settings: Settings, accept: Accept, notes: Path
) -> None:
    with worker_process(settings, handler=HANDLER, forker_notes=notes):
        before = accept("before", "return")
        eventually(lambda: rows.is_settled(before.user_id))  # its connections are made
        forked = accept("forks", "live")
        eventually(lambda: rows.is_settled(forked.user_id))
        [child] = map(int, rows.texts(forked.user_id))
        backends = _backends(rows)
        assert eventually(notes.read_text) == f"{child} sockets: []\n"
        after = accept("after", "return")
        eventually(lambda: rows.is_settled(after.user_id))
        assert backends <= _backends(rows), "the worker's connections are as they were"
        os.kill(child, signal.SIGTERM)
        eventually(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child))


def test_a_fork_waits_for_a_connection_that_is_being_made() -> None:
    done = subprocess.run([sys.executable, "-c", IN_THE_MAKING], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1 0\n", done.stderr


def _backends(rows: Rows) -> set[int]:
    row = rows.ask("SELECT array_agg(pid) AS pids FROM pg_stat_activity WHERE application_name = 'onelane'")
    return set(row.pids)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
