"""Clocks that step, back and ahead, while who reads them runs: what a host or a fail-over does to a program.

The whole program sees the step: the time of day, and in Redis the keys' ends, and how long a client may block. Its
monotonic clock goes on.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Final
from unittest.mock import patch

from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis

SERVER: Final = """#!/bin/sh
export {environment}
exec {server} "$@"
"""


class SteppingClock:
    """The clock of every process that has its `environment`: it shows the right time until it steps."""

    def __init__(self, offset_file: Path, *, looks_every_s: int = 0) -> None:
        """Keep in a file what the clock is ahead; all its processes read it so often; with 0 at each look.

        That costs 24 µs a look: what asks the time often is slow with it.
        """
        self.offset_s = 0.0
        """How far it is ahead of the right time."""
        self._offset_file = offset_file
        self.environment = {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(offset_file),
            **({"FAKETIME_CACHE_DURATION": str(looks_every_s)} if looks_every_s else {"FAKETIME_NO_CACHE": "1"}),
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # with that, waits of threads for each other last far too long
            "NO_FAKE_STAT": "1",
        }
        self.step(0)

    def step(self, seconds: float) -> None:
        """Set it ahead; back, with a negative number."""
        self.offset_s += seconds
        new = self._offset_file.with_suffix(".new")
        new.write_text(f"{self.offset_s:+.3f}")
        new.rename(self._offset_file)


class SteppingRedis(EmbeddedRedis):
    """An embedded Redis with a clock of its own."""

    def __init__(self, data_dir: Path, port: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(data_dir, port, settings)
        self.clock = SteppingClock(self.data_dir.parent / f"{self.data_dir.name}.offset")
        self._real_server = self._program.path
        self._program = replace(self._program, path=self.data_dir.parent / f"{self.data_dir.name}.sh")

    @property
    def offset_s(self) -> float:
        """How far its clock is ahead of the right time."""
        return self.clock.offset_s

    def step(self, seconds: float) -> None:
        """Set its clock ahead; back, with a negative number."""
        self.clock.step(seconds)

    def _launch(self) -> None:
        variables = " ".join(f"{name}={quote(value)}" for name, value in self.clock.environment.items())
        self._program.path.write_text(SERVER.format(environment=variables, server=quote(str(self._real_server))))
        self._program.path.chmod(stat.S_IRWXU)
        super()._launch()


class SteppingPostgres(EmbeddedPostgres):
    """An embedded Postgres with a clock of its own."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(data_dir, settings)
        self.clock = SteppingClock(self.data_dir.parent / f"{self.data_dir.name}.offset")

    def _launch(self) -> None:
        with patch.dict(os.environ, self.clock.environment):
            super()._launch()


def _library() -> Path:
    """Find what stands between a program and the system's clock, without importing its package."""
    spec = find_spec("libfaketime")
    assert spec, "make install"
    assert spec.submodule_search_locations, "make install"
    return Path(spec.submodule_search_locations[0], "vendor/libfaketime/src/libfaketime.so.1")
