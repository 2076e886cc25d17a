"""What work costs: CPU of each process, memory, commands to Redis, statements to Postgres. Reads Linux' /proc."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.stack import Stack
from onelane.dev.embedded.child import Child, descendants

CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
DISCONNECTED_S = 10.0
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
AFTER_NAME = 2
TIMES = slice(11, 15)
"""In /proc/<pid>/stat after the name: utime, stime, and those of children that have ended and were waited for."""


@dataclass(frozen=True)
class Costs:
    """Totals since the processes started."""

    processed: int
    cpu_s: Mapping[str, float]
    """By kind of process."""
    redis_commands: int
    redis_scripts: int
    wal_bytes: int

    @classmethod
    def now(cls, stack: Stack, processes: Mapping[str, Sequence[Child]], processed: int) -> Self:
        """Read all totals: of Postgres, of Redis, and of the processes beside them; whatever ended was a worker."""
        stats = stack.redis.info("commandstats")
        used = {kind: cpu_s(child.pid for child in some if child.is_running) for kind, some in processes.items()}
        ended = os.times()
        used["worker"] += ended.children_user + ended.children_system
        return cls(
            processed,
            {**used, "postgres": cpu_s([stack.postgres.pid]), "redis": cpu_s([stack.redis_server.pid])},
            sum(one["calls"] for one in stats.values()),
            sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha")),
            stack.value(WAL),
        )

    def per_message_since(self, before: Self) -> dict[str, float]:
        """Divide what was used since `before` by the messages processed since."""
        messages = max(1, self.processed - before.processed)
        counted = ("redis_commands", "redis_scripts", "wal_bytes")
        used = {f"{kind}_cpu_ms": 1000 * (self.cpu_s[kind] - before.cpu_s[kind]) for kind in self.cpu_s}
        used |= {name: getattr(self, name) - getattr(before, name) for name in counted}
        return {name: round(amount / messages, 4) for name, amount in used.items()}


def statements(stack: Stack) -> int:
    """Count the transactions so far but ours; each call of a process is one statement and one transaction.

    A connection reports its numbers at its end at the latest, so the processes must have ended. `pg_stat_statements`
    would count each statement by itself, but the PostgreSQL of the wheel does not have it.
    """
    stack.wait_for(lambda: not stack.value(CONNECTIONS), "the end of all connections", DISCONNECTED_S)
    return transactions(stack)


def transactions(stack: Stack) -> int:
    """Count them while processes run, which report their numbers seconds later."""
    stack.rows("SELECT pg_stat_force_next_flush()")
    total: int = stack.value("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    return total - stack.asked


def cpu_s(pids: Iterable[int]) -> float:
    """Add up the CPU time of processes and all that they have started, ended children included."""
    return sum(_ticks(member) for pid in pids for member in [pid, *descendants(pid)]) / TICKS_A_SECOND


def thread_cpu_ms(pid: int) -> float:
    """Read the CPU time of a process' main thread, exactly: a call of a few µs is measured, too."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def machine_cpu_s() -> float:
    """Add up the time that the machine's CPUs were busy, for any process."""
    user, nice, system, _idle, _wait, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + sum(rest)) / TICKS_A_SECOND


def memory_mb(pid: int, kind: str = "Pss") -> float:
    """Add up the memory of a process and its children; what they share counts once (PSS), or for each of them (Rss)."""
    return sum(_memory_kb(member, kind) for member in [pid, *descendants(pid)]) / 1024


def _ticks(pid: int) -> int:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[AFTER_NAME].split()
        return sum(int(field) for field in fields[TIMES])
    return 0


def _memory_kb(pid: int, kind: str) -> int:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{kind}:")).split()[1])
    return 0
