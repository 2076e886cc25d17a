"""Lets bots know soon that replies have failed: no lane waits for what that reads and writes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Telling:
    """Calls `tell`, by a thread of its own: once for all that failed since its last call began. For one thread."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self._tell = tell
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="failures")
        self._is_asked = False

    def soon(self) -> None:
        """Call it soon."""
        if not self._is_asked:
            self._is_asked = True
            self._thread.submit(self._call)

    def _call(self) -> None:
        self._is_asked = False
        self._tell()
