"""Says every few seconds how far a run has come, from what its processes have written so far."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

EVERY_S = 5.0
COUNTED = ("send", "ack", "commit", "fail")


class Progress:
    """One line now and then, on standard error."""

    def __init__(self, history: Path) -> None:
        self._history = history
        self._read_to: Counter[Path] = Counter()
        self._counts: Counter[str] = Counter()
        self._began_at = time.monotonic()
        self._shown_at = 0.0

    def show(self, phase: str, names: Sequence[str]) -> None:
        """Say where the run is, unless that was said just now."""
        if time.monotonic() - self._shown_at > EVERY_S:
            self._shown_at = time.monotonic()
            self._count()
            counts = "  ".join(f"{name} {self._counts[name]:,}" for name in COUNTED)
            self.say(f"{phase:6} {counts}  {', '.join(names)}")

    def say(self, text: str) -> None:
        """Say something with the run's time before it."""
        click.echo(f"{time.monotonic() - self._began_at:6.1f} s  {text}", err=True)

    def _count(self) -> None:
        for path in self._history.glob("*.jsonl"):
            with path.open("rb") as lines:
                lines.seek(self._read_to[path])
                read = lines.read()
            whole = read[: read.rfind(b"\n") + 1]
            self._read_to[path] += len(whole)
            for name in COUNTED:
                self._counts[name] += whole.count(f'"kind":"{name}"'.encode())
