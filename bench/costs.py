"""What work costs: CPU of each process, memory, commands to Redis, statements to Postgres. Reads Linux' /proc."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.stack import Stack
from onelane.dev.embedded.child import Child, descendants

CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
DISCONNECTED_S = 10.0
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
AFTER_NAME = 2
TIMES = slice(11, 15)
"""In /proc/<pid>/stat after the name: utime, stime, and those of children that have ended and were waited for."""


@dataclass(frozen=True)
class Costs:
    """Totals since the processes started."""

    processed: int
    worker_cpu_s: float
    postgres_cpu_s: float
    redis_cpu_s: float
    redis_commands: int
    redis_scripts: int

    @classmethod
    def now(cls, stack: Stack, workers: Sequence[Child], processed: int) -> Self:
        """Read all totals."""
        stats = stack.redis.info("commandstats")
        return cls(
            processed,
            cpu_s(child.pid for child in workers if child.is_running),
            cpu_s([stack.postgres.pid]),
            cpu_s([stack.redis_server.pid]),
            sum(one["calls"] for one in stats.values()),
            sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha")),
        )

    def per_message_since(self, before: Self) -> dict[str, float]:
        """Divide what was used since `before` by the messages processed since."""
        messages = max(1, self.processed - before.processed)
        used = {name: vars(self)[name] - vars(before)[name] for name in vars(self) if name != "processed"}
        return {
            "worker_cpu_ms": 1000 * used["worker_cpu_s"] / messages,
            "postgres_cpu_ms": 1000 * used["postgres_cpu_s"] / messages,
            "redis_cpu_ms": 1000 * used["redis_cpu_s"] / messages,
            "redis_commands": used["redis_commands"] / messages,
            "redis_scripts": used["redis_scripts"] / messages,
        }


def statements(stack: Stack) -> int:
    """Count the transactions so far but ours; each call of a process is one statement and one transaction.

    A connection reports its numbers at its end at the latest, so the processes must have ended. `pg_stat_statements`
    would count each statement by itself, but the PostgreSQL of the wheel does not have it.
    """
    stack.wait_for(lambda: not stack.value(CONNECTIONS), "the end of all connections", DISCONNECTED_S)
    stack.rows("SELECT pg_stat_force_next_flush()")
    total: int = stack.value("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    return total - stack.asked


def cpu_s(pids: Iterable[int]) -> float:
    """Add up the CPU time of processes and all that they have started, ended children included."""
    return sum(_ticks(member) for pid in pids for member in [pid, *descendants(pid)]) / TICKS_A_SECOND


def machine_cpu_s() -> float:
    """Add up the time that the machine's CPUs were busy, for any process."""
    user, nice, system, _idle, _wait, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + sum(rest)) / TICKS_A_SECOND


def memory_mb(pid: int) -> float:
    """Add up the memory of a process and its children; what they share counts once (PSS)."""
    return sum(_pss_kb(member) for member in [pid, *descendants(pid)]) / 1024


def _ticks(pid: int) -> int:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[AFTER_NAME].split()
        return sum(int(field) for field in fields[TIMES])
    return 0


def _pss_kb(pid: int) -> int:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return 0
