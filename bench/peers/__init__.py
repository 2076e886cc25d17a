"""What takes part in a drain."""

from typing import Protocol

from bench.stack import Stack
from bench.workload import Workload


class Contestant(Protocol):
    """One way to process the same messages."""

    @property
    def name(self) -> str:
        """Its name in tables."""

    @property
    def share(self) -> float:
        """The part of the workload it gets: the slow ones would take minutes for all of it."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of processes, or of clients, worth measuring."""

    @property
    def is_tuned(self) -> bool:
        """Whether only the best of its sizes is measured in full."""

    @property
    def unit(self) -> str:
        """What a size counts."""

    def accept(self, stack: Stack, workload: Workload) -> None:
        """Commit the messages and put them where the processes find them."""

    def commands(self, stack: Stack, workload: Workload, size: int) -> list[list[str]]:
        """Return the command lines of the processes to start."""
