"""A Redis whose clock steps, back and ahead, while it runs: what its host or a fail-over does to it.

The whole server sees the step: TIME, the keys' ends, and how long a client may block. Its monotonic clock goes on.
"""

import stat
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from onelane.dev.embedded import EmbeddedRedis

SERVER: Final = """#!/bin/sh
export LD_PRELOAD='{library}' FAKETIME_TIMESTAMP_FILE='{offset}' FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1
exec '{server}' "$@"
"""


class SteppingRedis(EmbeddedRedis):
    """An embedded Redis with a clock of its own, which shows the right time until it steps."""

    def __init__(self, data_dir: Path, port: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(data_dir, port, settings)
        self.offset_s = 0.0
        """How far its clock is ahead of the right time."""
        self._offset_file = self.data_dir.parent / f"{self.data_dir.name}.offset"
        self._real_server = self._program.path
        self._program = replace(self._program, path=self.data_dir.parent / f"{self.data_dir.name}.sh")

    def step(self, seconds: float) -> None:
        """Set its clock ahead; back, with a negative number."""
        self.offset_s += seconds
        new = self._offset_file.with_suffix(".new")
        new.write_text(f"{self.offset_s:+.3f}")
        new.rename(self._offset_file)  # it is read at every look at the clock

    def _launch(self) -> None:
        self.step(0)
        self._program.path.write_text(
            SERVER.format(library=_library(), offset=self._offset_file, server=self._real_server)
        )
        self._program.path.chmod(stat.S_IRWXU)
        super()._launch()


def _library() -> Path:
    """Find what stands between a program and the system's clock, without importing its package."""
    spec = find_spec("libfaketime")
    assert spec, "make install"
    assert spec.submodule_search_locations, "make install"
    return Path(spec.submodule_search_locations[0], "vendor/libfaketime/src/libfaketime.so.1")
