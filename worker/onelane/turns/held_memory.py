"""How much memory a group of processes holds."""

import os
from pathlib import Path

COUNTED = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")
"""What a process has written, also if it was swapped out. Pages of files can be dropped at any time."""


def held_mb(group: int) -> float:
    """Return the MB that the processes of a group hold; what several share counts once. 0 where /proc does not say."""
    try:
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except OSError:
        return 0
    return sum(_held_kb(pid) for pid in pids if _group_of(pid) == group) / 1024


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None  # it has ended


def _held_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
    except OSError:
        return 0  # it has ended
    return sum(int(line.split()[1]) for line in lines if line.startswith(COUNTED))
