"""A saved change of the bot replaces the worker, between turns; a bot that cannot be imported changes nothing.

The new worker starts beside the old one. Once it works, the old one takes no more lanes and ends when its turns have
ended: what runs is answered by the old code, once, and what comes then by the new.
"""

import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final

from watchfiles import Change, PythonFilter, watch

from onelane.dev.embedded.child import Child
from onelane.dev.stack import WORKER, Stack

STARTED: Final = "worker_started"
DEBOUNCE_MS: Final = 200
TRACE_LINES: Final = 40


class Reloader:
    """Watches the bot's files from a thread, and replaces the worker when it is asked to `look`."""

    def __init__(self, stack: Stack, worker: Child, handler: str, problem: Path, say: Callable[[str], object]) -> None:
        """Write to `problem` why the newest code does not run; the file is gone when it does."""
        self._stack = stack
        self._problem = problem
        self._say = say
        self._numbers = count(2)
        self._worker = worker
        self._next: Child | None = None
        self._old: list[Child] = []
        self._changed = threading.Event()
        self._problem.unlink(missing_ok=True)
        if watched := files_of(handler, Path.cwd()):
            threading.Thread(target=self._watch, args=(watched,), name="reload", daemon=True).start()

    def look(self) -> None:
        """Go on with what is under way; never waits."""
        for ended in [old for old in self._old if old.has_died]:
            self._old.remove(ended)
            self._stack.forget(ended)
        if self._next is not None:
            self._follow(self._next)
        elif self._changed.is_set():
            self._changed.clear()
            self._say("onelane: the bot has changed, a new worker starts")
            self._next = self._stack.start(f"worker-{next(self._numbers)}", WORKER, self._logged(), may_end=True)

    def _logged(self) -> dict[str, str]:
        """Return what a worker needs to log STARTED, whatever LOG_LEVEL is."""
        is_logged = self._stack.environment.get("LOG_LEVEL", "").upper() in {"", "DEBUG", "INFO"}
        return {} if is_logged else {"LOG_LEVEL": "INFO"}

    def _follow(self, following: Child) -> None:
        if following.has_died:
            why = following.last_lines(TRACE_LINES)
            self._problem.write_text(why, encoding="utf-8")
            self._say(f"{why}\nonelane: the bot as it was goes on")
            self._stack.forget(following)
            self._next = None
        elif STARTED in following.log.read_text(errors="replace"):
            self._stack.retire(self._worker)
            self._old.append(self._worker)
            self._stack.keep(following)
            self._problem.unlink(missing_ok=True)
            self._worker, self._next = following, None
            self._say("onelane: the new bot answers")

    def _watch(self, watched: Path) -> None:
        """Watch a package whole; of a single file its folder, since an editor puts another file in its place."""
        python = PythonFilter()

        def counts(change: Change, path: str) -> bool:
            return python(change, path) and (watched.is_dir() or Path(path) == watched)

        folder = watched if watched.is_dir() else watched.parent
        for _ in watch(folder, watch_filter=counts, debounce=DEBOUNCE_MS, recursive=watched.is_dir()):
            self._changed.set()


def files_of(handler: str, folder: Path) -> Path | None:
    """Return what to watch of `module:function`: a module's file, a package's folder; None for what is installed."""
    name = handler.partition(":")[0].partition(".")[0]
    candidates = (folder / name, folder / f"{name}.py")
    return next((candidate for candidate in candidates if candidate.exists()), None)
