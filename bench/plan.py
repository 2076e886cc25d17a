"""How much is measured, and who hears about it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import click

Size = TypeVar("Size")


def to_terminal(line: str) -> None:
    """Tell progress beside the tables, which go to standard output."""
    click.echo(line, err=True)


@dataclass(frozen=True)
class Plan:
    """What was asked for on the command line."""

    runs: int = 3
    is_quick: bool = False
    """Small sizes, to see that everything works; the numbers mean little."""
    peers: tuple[str, ...] = ()
    """Only peers whose names begin with one of these; all when empty."""
    tell: Callable[[str], None] = field(default=to_terminal)

    def size(self, full: Size, quick: Size) -> Size:
        """Choose by what was asked for."""
        return quick if self.is_quick else full

    def wants(self, peer: str) -> bool:
        """Answer whether a peer takes part."""
        return not self.peers or peer.startswith(self.peers)
