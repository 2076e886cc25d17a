"""The one scheduler of what is done again and again: a thread a task, which no error of the task ends.

Once a second a task that has ended its call looks after all others of its process: a thread that hangs in its call, or
has died, is replaced. So none needs a watcher, which would need one in turn. Should all hang at once, whoever is
watched from outside finds it: in the web the loop, whose heartbeat gunicorn expects.
"""

import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from weakref import WeakSet

from onelane.errors import LanesUnavailable, describe
from onelane.telemetry.log import event

LIMIT_S = 120.0
"""A call that takes longer hangs: whatever it may wait for has a shorter deadline."""
LOOK_EVERY_S: Final = 1.0
"""For all tasks together: they are short and many."""
REVIVALS_MAX = 3
"""What hangs in every new thread, too, needs a new process."""

_started: "WeakSet[Periodic]" = WeakSet()
_reviving = threading.Lock()
"""Guards who is started, stopped and revived: two that find the same thread dead start one."""
_looked_at = 0.0
"""When somebody last looked after the others, on the monotonic clock."""


class Usual:
    """How long something takes: the shorter of its last two times, so that one outage that it waits out is nothing."""

    def __init__(self) -> None:
        self._last_s = 0.0

    def after(self, took_s: float) -> float:
        """Take the last time into account."""
        usual_s, self._last_s = min(self._last_s, took_s), took_s
        return usual_s


class Periodic:
    """Calls `task` at once and then every `every_s` seconds, between the end of a call and the next."""

    def __init__(self, name: str, task: Callable[[], object], every_s: float) -> None:
        self.name = name
        self._task = task
        self._every_s = every_s
        self._is_stopped = False
        self._began_at: float | None = None
        self._revivals = 0
        self._postponed_for: str | None = None
        """Why its last call was in vain: an outage is logged when it begins, and when its reason is another."""
        self._new_thread()

    def start(self) -> None:
        """Begin; the thread ends with the process, whether stopped or not."""
        with _reviving:
            self._thread.start()
            _started.add(self)

    def stop(self, within_s: float | None = None) -> None:
        """Call the task no more. With `within_s`, wait so long for a call that runs."""
        with _reviving:
            self._is_stopped = True
            self._over.set()
        if within_s is not None and self._thread.is_alive():
            self._thread.join(within_s)

    @property
    def is_stuck(self) -> bool:
        """Whether its thread hangs in a call, or has died."""
        hangs = (began := self._began_at) is not None and time.monotonic() - began > LIMIT_S
        return not self._is_stopped and (hangs or not self._thread.is_alive())

    @property
    def is_hopeless(self) -> bool:
        """Whether it has hung or died in every thread that it was given."""
        with _reviving:  # a thread that is about to begin looks dead
            return self._revivals >= REVIVALS_MAX and self.is_stuck

    def revive(self) -> None:
        """Go on in a new thread, unless another task has seen to it; a call that hangs is left alone."""
        with _reviving:
            if not self.is_stuck or self._revivals >= REVIVALS_MAX:
                return
            where = _where(self._thread)
            self._revivals += 1
            self._over.set()
            self._new_thread()
            with suppress(RuntimeError):  # no thread can be had: the task is as dead as before, and looked at again
                self._thread.start()
        event("task_stuck", task=self.name, failure=where)

    def _new_thread(self) -> None:
        """Make a thread with an end of its own: the one before, should it ever return, calls nothing."""
        self._over, self._began_at = threading.Event(), None
        self._thread = threading.Thread(target=self._run, args=(self._over,), name=self.name, daemon=True)

    def _run(self, over: threading.Event) -> None:
        while not over.is_set():
            self._began_at = time.monotonic()
            self._call()
            if over.is_set():
                return
            self._began_at = None
            if _is_time_to_look():
                revive_stuck()
            over.wait(self._every_s)

    def _call(self) -> None:
        try:
            self._task()
            self._postponed_for = None
        except LanesUnavailable as error:
            if str(error) != self._postponed_for:
                event("task_postponed", task=self.name, error=str(error))
            self._postponed_for = str(error)
        except Exception as error:  # noqa: BLE001 - the next round may succeed, and nobody else would do it
            event("task_failed", task=self.name, failure=describe(error))


def _is_time_to_look() -> bool:
    """Whether nobody has looked after the others for a second; that two may find so at once harms nobody."""
    global _looked_at  # noqa: PLW0603 - as one for the process as the tasks that are looked after
    now = time.monotonic()
    if now - _looked_at < LOOK_EVERY_S:
        return False
    _looked_at = now
    return True


def revive_stuck() -> None:
    """Let each task of this process that hangs or has died go on in a new thread."""
    for task in _all():
        if task.is_stuck:
            task.revive()


def hopeless_task() -> str | None:
    """Name a task of this process that no new thread helps; None when all are well."""
    return next((task.name for task in _all() if task.is_hopeless), None)


def _all() -> list[Periodic]:
    with _reviving:
        return list(_started)


def _where(thread: threading.Thread) -> str:
    """Describe where a thread is; what stands there is code, never values."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the documented way to a thread's stack
    return "".join(traceback.format_stack(frame)) if frame else "its thread has died"
