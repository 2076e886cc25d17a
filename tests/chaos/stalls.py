"""Notices when this process got no CPU for a while, and how much the whole machine has to do.

A process stalls that is stopped, starved, or whose interpreter is held by one thread.
"""

import os
import threading
import time
from pathlib import Path
from statistics import mean

from tests.chaos.history import Recorder

TICK_S = 0.1
STALL_S = 0.4
WINDOW_S = 1.0
LOADAVG = Path("/proc/loadavg")


def watch_stalls(recorder: Recorder) -> None:
    """Note every stall of this process from now on."""
    threading.Thread(target=_watch, args=(recorder,), name="stalls", daemon=True).start()


def watch_load(recorder: Recorder) -> None:
    """Note how many want the machine's cores, whoever it is; where it tells."""
    if LOADAVG.exists():
        threading.Thread(target=_watch_load, args=(recorder,), name="load", daemon=True).start()


def ready(loadavg: str) -> int:
    """Read how many threads are ready to run, from /proc/loadavg; who reads it is one of them."""
    return int(loadavg.split()[3].partition("/")[0]) - 1


def _watch(recorder: Recorder) -> None:
    seen = time.monotonic()
    while True:
        time.sleep(TICK_S)
        now = time.monotonic()
        if now - seen > STALL_S:
            recorder.note("stall", since=seen, until=now)
        seen = now


def _watch_load(recorder: Recorder) -> None:
    while True:
        since, counts = time.monotonic(), [ready(LOADAVG.read_text())]
        while time.monotonic() - since < WINDOW_S:
            time.sleep(TICK_S)
            counts.append(ready(LOADAVG.read_text()))
        each = mean(counts) / (os.cpu_count() or 1)
        recorder.note("load", since=since, until=time.monotonic(), ready_each=round(each, 2))
