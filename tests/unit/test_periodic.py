"""The scheduler of what is done again and again: nothing that the task does ends it, and stop does."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

import pytest

from onelane import periodic as scheduler
from onelane.errors import LanesUnavailable, StoreUnavailable
from onelane.periodic import REVIVALS_MAX, Periodic, hopeless_task
from tests.conftest import DEADLINE_S, LogLines, eventually

NEVER_S = 3_600


class Start(Protocol):
    """Starts a task, which is stopped after the test."""

    def __call__(self, task: Callable[[], object], every_s: float, name: str = "task") -> Periodic: ...


class Task:
    """Notes when each call began and ended, and does what it was made to do in between."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.began: list[float] = []
        self.ended: list[float] = []
        self._act = act

    def __call__(self) -> None:
        self.began.append(time.monotonic())
        try:
            self._act()
        finally:
            self.ended.append(time.monotonic())


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a task, and stop it after the test."""
    started: list[Periodic] = []

    def start(task: Callable[[], object], every_s: float, name: str = "task") -> Periodic:
        started.append(Periodic(name, task, every_s))
        started[-1].start()
        return started[-1]

    yield start
    for periodic in started:
        periodic.stop(DEADLINE_S)
        assert not periodic._thread.is_alive()


def test_the_first_call_comes_at_once(start: Start) -> None:
    task = Task()
    start(task, NEVER_S)
    eventually(lambda: task.ended)
    assert len(task.began) == 1


def test_the_pause_is_counted_from_the_end_of_a_call(start: Start) -> None:
    task = Task(lambda: threading.Event().wait(0.05))
    start(task, 0.02)
    eventually(lambda: len(task.ended) > 4)
    pauses = [began - ended for began, ended in zip(task.began[1:], task.ended, strict=False)]
    assert min(pauses) >= 0.019


def test_calls_of_a_task_never_overlap(start: Start) -> None:
    gate = threading.Event()
    task = Task(lambda: gate.wait(DEADLINE_S))
    start(task, 0)
    eventually(lambda: task.began)
    assert (len(task.began), len(task.ended)) == (1, 0)
    gate.set()
    eventually(lambda: len(task.ended) > 1)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            LanesUnavailable("Redis did not answer"),
            {"event": "task_postponed", "task": "tidy", "error": "Redis did not answer", "log_level": "warning"},
        ),
        (StoreUnavailable("in our words"), {"event": "task_failed", "task": "tidy", "log_level": "error"}),
        (ValueError("text"), {"event": "task_failed", "task": "tidy", "log_level": "error"}),
        (RecursionError("text"), {"event": "task_failed", "task": "tidy", "log_level": "error"}),
    ],
    ids=["Redis away", "Postgres away", "a bug", "too deep"],
)
def test_an_error_is_logged_with_the_tasks_name_and_ends_nothing(
    error: Exception, line: dict[str, Any], start: Start, log_lines: LogLines
) -> None:
    def fail() -> None:
        raise error

    task = Task(fail)
    start(task, 0, name="tidy")
    eventually(lambda: len(task.ended) > 2)
    logged = dict(log_lines[0])
    failure = logged.pop("failure", "")
    assert logged == line
    assert "text" not in failure
    assert ("in fail" in failure) == (line["event"] == "task_failed")


def test_a_task_succeeds_again_after_an_error(start: Start, log_lines: LogLines) -> None:
    errors = [ValueError(), LanesUnavailable("Redis did not answer")]
    done = threading.Event()

    def fail_twice() -> None:
        if errors:
            raise errors.pop(0)
        done.set()

    start(fail_twice, 0)
    assert done.wait(DEADLINE_S)
    assert [line["event"] for line in log_lines] == ["task_failed", "task_postponed"]


def test_stop_ends_a_long_pause_at_once(start: Start) -> None:
    task = Task()
    periodic = start(task, NEVER_S)
    eventually(lambda: task.ended)
    periodic.stop(DEADLINE_S)
    assert not periodic._thread.is_alive()
    assert len(task.began) == 1


def test_stop_waits_for_a_call_as_long_as_it_is_asked_to(start: Start) -> None:
    gate = threading.Event()
    task = Task(lambda: gate.wait(DEADLINE_S))
    periodic = start(task, 0)
    eventually(lambda: task.began)
    periodic.stop()
    periodic.stop(0.01)
    assert periodic._thread.is_alive()
    gate.set()
    periodic.stop(DEADLINE_S)
    assert len(task.began) == len(task.ended) == 1


def test_a_task_that_was_stopped_before_its_start_is_never_called(start: Start) -> None:
    task = Task()
    periodic = Periodic("task", task, 0)
    periodic.stop(0)
    periodic.start()
    periodic._thread.join(DEADLINE_S)
    assert task.began == []


def test_a_task_may_stop_itself(start: Start) -> None:
    def end() -> None:
        periodic.stop()

    task = Task(end)
    periodic = Periodic("task", task, 0)
    periodic.start()
    periodic._thread.join(DEADLINE_S)
    assert len(task.ended) == 1


def test_a_process_ends_although_a_task_runs() -> None:
    assert Periodic("task", lambda: None, 1)._thread.daemon


# the watchers, too, are watched


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    """Call what takes 0.4 s hanging; another task looks after all."""
    monkeypatch.setattr(scheduler, "LIMIT_S", 0.4)
    start(lambda: None, 0.02, name="another")


@pytest.mark.usefixtures("_impatient")
def test_a_task_that_hangs_goes_on_in_a_new_thread_and_is_named_with_its_stack(
    start: Start, log_lines: LogLines
) -> None:
    gate, first = threading.Event(), threading.Event()

    def hang_once() -> None:
        if not first.is_set():
            first.set()
            gate.wait(DEADLINE_S)

    task = Task(hang_once)
    start(task, 0.02, name="hangs")
    eventually(lambda: len(task.ended) > 2 and any("task" in line for line in log_lines))
    [line] = [line for line in log_lines if "task" in line]
    assert (line["event"], line["task"]) == ("task_stuck", "hangs")
    assert "in hang_once" in line["failure"]
    gate.set()
    eventually(lambda: [thread.name for thread in threading.enumerate()].count("hangs") == 1)
    assert hopeless_task() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.usefixtures("_impatient")
def test_a_task_whose_thread_died_goes_on_in_a_new_one(start: Start, log_lines: LogLines) -> None:
    deaths = [SystemExit(), SystemExit()]

    def die_twice() -> None:
        if deaths:
            raise deaths.pop()

    task = Task(die_twice)
    start(task, 0.02, name="dies")
    eventually(lambda: len(task.ended) > 4 and len(log_lines) > 1)
    assert [(line["task"], line["failure"]) for line in log_lines] == [("dies", "its thread has died")] * 2


@pytest.mark.usefixtures("_impatient")
def test_a_task_that_hangs_in_every_thread_is_given_no_more_and_called_hopeless(
    start: Start, log_lines: LogLines
) -> None:
    gate = threading.Event()
    task = Task(lambda: gate.wait(DEADLINE_S))
    start(task, 0, name="hopeless")
    assert eventually(hopeless_task) == "hopeless"
    eventually(lambda: len(log_lines) >= REVIVALS_MAX and len(task.began) > REVIVALS_MAX)
    assert len(log_lines) == REVIVALS_MAX == len(task.began) - 1
    gate.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_task_whose_last_new_thread_has_just_not_begun_is_not_hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looked in that moment ended a healthy process."""
    deaths = [SystemExit()]

    def die_once() -> None:
        if deaths:
            raise deaths.pop()

    periodic = Periodic("dies", die_once, NEVER_S)
    looks: list[Future[bool]] = []
    new_thread = periodic._new_thread

    def looked_at_meanwhile() -> None:
        looks.append(threads.submit(lambda: periodic.is_hopeless))
        wait(looks, 0.2)
        new_thread()

    monkeypatch.setattr(periodic, "_new_thread", looked_at_meanwhile)
    monkeypatch.setattr(periodic, "_revivals", REVIVALS_MAX - 1)
    with ThreadPoolExecutor(1) as threads:
        periodic.start()
        eventually(lambda: periodic.is_stuck or looks)
        periodic.revive()
        assert [look.result(DEADLINE_S) for look in looks] == [False]
    periodic.stop(DEADLINE_S)


def test_a_task_for_which_there_is_no_new_thread_is_hopeless_and_its_watchers_live(
    monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    def no_thread(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    periodic = Periodic("dies", lambda: None, NEVER_S)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    for _ in range(REVIVALS_MAX + 1):
        periodic.revive()
    assert periodic.is_hopeless
    assert [line["event"] for line in log_lines] == ["task_stuck"] * REVIVALS_MAX


@pytest.mark.usefixtures("_impatient")
def test_a_task_that_was_stopped_is_left_alone_whatever_it_does(start: Start, log_lines: LogLines) -> None:
    gate = threading.Event()
    task = Task(lambda: gate.wait(DEADLINE_S))
    start(task, 0).stop()
    others = Task()
    start(others, 0.02)
    eventually(lambda: others.ended and others.ended[-1] - others.ended[0] > 0.5)
    assert [line for line in log_lines if line.get("task") == "task"] == []
    gate.set()
