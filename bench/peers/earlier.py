"""An earlier version of ours, from another checkout, with its own interpreter and packages."""

from dataclasses import dataclass

from bench.checkout import Checkout
from bench.errors import BenchError
from bench.stack import Stack
from bench.workload import Workload


@dataclass(frozen=True)
class Earlier:
    """One worker process of it; only the whole way is measured against it, where clients accept through its intake."""

    checkout: Checkout
    share: float = 1.0
    sizes: tuple[int, ...] = (1,)
    is_tuned: bool = False
    unit: str = "process"

    @property
    def name(self) -> str:
        """Name its commit."""
        return f"earlier version, {self.checkout.commit}"

    def accept(self, _stack: Stack, _workload: Workload) -> None:
        """Refuse: its packages are not in this interpreter."""
        raise BenchError(f"{self.name} accepts in processes of its own")

    def commands(self, _stack: Stack, _workload: Workload, size: int) -> list[list[str]]:
        """Start workers with its defaults."""
        return [self.checkout.command("worker")] * size
