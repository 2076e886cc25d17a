"""Notices when this process got no CPU for a while: stopped, starved, or its interpreter held by one thread."""

import threading
import time

from tests.chaos.history import Recorder

TICK_S = 0.1
STALL_S = 0.4


def watch_stalls(recorder: Recorder) -> None:
    """Note every stall of this process from now on."""
    threading.Thread(target=_watch, args=(recorder,), name="stalls", daemon=True).start()


def _watch(recorder: Recorder) -> None:
    seen = time.monotonic()
    while True:
        time.sleep(TICK_S)
        now = time.monotonic()
        if now - seen > STALL_S:
            recorder.note("stall", since=seen, until=now)
        seen = now
