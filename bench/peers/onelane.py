"""Ours, as a user runs it: `onelane worker` with its defaults."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.measuring import OURS
from bench.stack import CHANNEL, Stack
from bench.workload import Workload
from onelane.deliveries import Delivery
from onelane.dev.stack import WORKER

BATCH = 50


@dataclass(frozen=True)
class Onelane:
    """Messages accepted by Intake in batches, processed by one or two worker processes."""

    name: str = OURS
    share: float = 1.0
    sizes: tuple[int, ...] = (1, 2)
    is_tuned: bool = False
    unit: str = "process"

    def accept(self, stack: Stack, workload: Workload) -> None:
        """Accept as a webhook with many messages does."""
        accept(stack, workload.deliveries())

    def commands(self, _stack: Stack, _workload: Workload, size: int) -> list[list[str]]:
        """Start workers, with their default number of slots."""
        return [list(WORKER)] * size


def accept(stack: Stack, deliveries: Sequence[Delivery]) -> None:
    """Accept through Intake, batch by batch."""
    with stack.services() as services:
        for start in range(0, len(deliveries), BATCH):
            services.intake.accept(CHANNEL, deliveries[start : start + BATCH])
