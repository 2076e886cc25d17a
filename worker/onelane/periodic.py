"""The one scheduler of what is done again and again: a thread a task, which no error of the task ends."""

import threading
from collections.abc import Callable

from onelane.errors import LanesUnavailable, describe
from onelane.telemetry.log import event


class Periodic:
    """Calls `task` at once and then every `every_s` seconds, between the end of a call and the next."""

    def __init__(self, name: str, task: Callable[[], object], every_s: float) -> None:
        self._name = name
        self._task = task
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the thread ends with the process, whether stopped or not."""
        self._thread.start()

    def stop(self, within_s: float | None = None) -> None:
        """Call the task no more. With `within_s`, wait so long for a call that runs."""
        self._stopped.set()
        if within_s is not None and self._thread.is_alive():
            self._thread.join(within_s)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._task()
            except LanesUnavailable as error:
                event("task_postponed", task=self._name, error=str(error))
            except Exception as error:  # noqa: BLE001 - the next round may succeed, and nobody else would do it
                event("task_failed", task=self._name, failure=describe(error))
            self._stopped.wait(self._every_s)
