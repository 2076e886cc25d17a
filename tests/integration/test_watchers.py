"""Who watches whom in a worker process: each thread has a watcher, and no watcher is without one."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from onelane import periodic
from onelane.config import Settings
from onelane.periodic import Periodic
from tests.conftest import DEADLINE_S, Accept, LogLines, RunWorker, eventually
from tests.rows import Rows

TASKS = ("db-watchdog", "duties", "keeper", "numbers", "postponed", "registration", "watch")
WATCHERS = {
    **dict.fromkeys(TASKS, "every other task, and the last resort, which the keeper puts off"),
    "runner": "the last resort, which the keeper puts off (it is the main thread of a process)",
    "dispatcher": "the keeper and the main thread",
    "lease": "the watch, by the stage of its shift",
    "shifts": "the watch, which asks it for a sign of life",
    "handlers": "the watch, which asks it for a sign of life",
    "reads": "the watch, by the stage of the shift that waits for it",
    "renewals": "the keeper, which counts what the helper leaves unanswered",
    "lanes": "who asks: it has a deadline, and starts another when this one has died",
    "lookout": "the shifts that wait for it, by their stages; who asks starts another when it has died",
    "sender": "the shifts that wait for it, by their stages",
    "connect": "who waits for the connection, who has a deadline",
    "probe": "nobody: it waits for Postgres alone, with a deadline, and who asks does not wait longer than its own",
}
"""Every thread of a worker, and who finds out when it hangs or has died."""
LIMIT_S = 3.0
"""More than the dispatcher's own wait for work."""


@pytest.fixture
def release() -> Iterator[threading.Event]:
    release = threading.Event()
    yield release
    release.set()


@pytest.mark.slow
def test_every_thread_has_a_watcher_and_every_task_that_hangs_goes_on_in_a_new_thread(
    settings: Settings,
    accept: Accept,
    rows: Rows,
    run_worker: RunWorker,
    log_lines: LogLines,
    monkeypatch: pytest.MonkeyPatch,
    release: threading.Event,
) -> None:
    monkeypatch.setattr(periodic, "LIMIT_S", LIMIT_S)
    earlier, others = set(threading.enumerate()), set(periodic._all())
    with run_worker(settings.model_copy(update={"handler": "tests.bots:handle_async"})):
        accept("alice", "history")
        eventually(lambda: rows.answered() == 1)
        names = {thread.name.partition("_")[0] for thread in set(threading.enumerate()) - earlier}
        assert names <= set(WATCHERS)
        tasks = {task.name: task for task in set(periodic._all()) - others}
        assert set(tasks) == set(TASKS)
        for hanging in ([name for name in TASKS if name != "keeper"], ["keeper"]):
            again = {name: plant_a_hang(tasks[name], release) for name in hanging}
            for called in again.values():
                assert called.wait(DEADLINE_S)
        eventually(lambda: {line["task"] for line in log_lines if line["event"] == "task_stuck"} >= set(TASKS))


def plant_a_hang(task: Periodic, release: threading.Event) -> threading.Event:
    """Let the next call of a task hang; return what is set by the call after that, in a new thread."""
    act, hangs, again = task._task, threading.Event(), threading.Event()

    def call() -> object:
        if not hangs.is_set():
            hangs.set()
            release.wait()
            return None
        again.set()
        return act()

    task._task = call
    return again


def test_a_process_whose_last_resort_nobody_puts_off_ends_with_its_stacks() -> None:
    code = (
        "import time; from onelane.config import Settings; from onelane.processes.ending import Ending;"
        "settings = Settings.model_construct(stall_limit_s=0.2, shutdown_grace_s=20);"
        "Ending(settings).put_off(); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 1
    assert "most recent call first" in done.stderr
