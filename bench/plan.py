"""How much is measured, and where progress is reported."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import click

Size = TypeVar("Size")


def to_terminal(line: str) -> None:
    """Print progress to standard error; the tables go to standard output."""
    click.echo(line, err=True)


@dataclass(frozen=True)
class Plan:
    """The options of the command line."""

    runs: int = 3
    is_quick: bool = False
    """Small sizes, to check that everything works; the numbers mean little."""
    peers: tuple[str, ...] = ()
    """Only peers whose names begin with one of these; all when empty."""
    against: Path | None = None
    """A checkout of an earlier version, to be measured beside this one."""
    report: Callable[[str], None] = field(default=to_terminal)

    def size(self, full: Size, quick: Size) -> Size:
        """Choose the full size or the quick one."""
        return quick if self.is_quick else full

    def wants(self, peer: str) -> bool:
        """Return whether a peer takes part."""
        return not self.peers or peer.startswith(self.peers)
