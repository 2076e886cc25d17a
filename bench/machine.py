"""The machine that a result is of: what runs there, and where data lie."""

import os
import platform
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from bench.checkout import HERE
from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
"""File systems where a flush to disk costs nothing."""


@cache
def described() -> str:
    """Name the CPUs, the programs with their versions, this commit, and the file system of the data."""
    with TemporaryDirectory() as folder:
        servers = (EmbeddedPostgres(Path(folder) / "postgres"), EmbeddedRedis(Path(folder) / "redis"))
        programs = [server.program.partition(", ")[0] for server in servers]
    parts = [f"{os.cpu_count()} CPUs", platform.system(), f"Python {platform.python_version()}", *programs]
    return ", ".join([*parts, f"data on {filesystem(Path(gettempdir()))}", f"commit {HERE.commit}"])


def filesystem(folder: Path) -> str:
    """Return the type of the file system that holds a folder; of those mounted at one place the last counts."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(place, kind) for place, kind in mounts if folder.resolve().is_relative_to(place)]
    return max(reversed(holding), key=lambda mount: len(mount[0]))[1]
