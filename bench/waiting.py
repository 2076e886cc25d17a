"""Handlers that wait: how many run at once, and what that takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import checking, handlers
from bench.costs import CONNECTIONS, memory_mb
from bench.draining import judged
from bench.measuring import Figures
from bench.peers import Contestant
from bench.stack import STOP_S, Stack, fresh
from bench.workload import Workload
from onelane.dev.embedded.child import Child, stop_all

PATIENCE_S = 90.0
POLL_S = 0.3
LASTED = """
SELECT extract(epoch FROM max(processed_at) - min(processed_at))::float FROM messages WHERE direction = 'in'
"""
"""From the first commit to the last."""
LEASE_LOST = "lease_lost"


@dataclass(frozen=True)
class Slots:
    """Processes whose handlers wait `wait_s` for each message."""

    contestant: Contestant
    workload: Workload
    wait_s: float
    processes: int = 1
    environment: dict[str, object] = field(default_factory=dict)
    handler: str = handlers.SYNC


def wait_out(slots: Slots) -> Figures:
    """Process everything; return how many handlers ran at once, and the most memory and connections used meanwhile."""
    with fresh() as servers:
        slots.contestant.accept(servers, slots.workload)
        notes = servers.folder / "notes"
        environment = {**handlers.environment(notes, slots.wait_s, slots.handler), **slots.environment}
        commands = slots.contestant.commands(servers, slots.workload, slots.processes)
        children = [servers.start(f"worker-{nr}", argv, environment) for nr, argv in enumerate(commands)]
        used = _watch(servers, children, slots.workload.messages)
        stop_all(children, STOP_S)
        verdict = judged(servers, slots.contestant.name, slots.workload)
        noted = handlers.read(notes)
        return {
            **_at_once(noted),
            "done_s": round(servers.value(LASTED), 2),
            "messages_per_s": round(slots.workload.messages / (noted[-1]["at"] - noted[0]["at"]), 2),
            **used,
            "leases_lost": sum(child.log.read_text(errors="replace").count(LEASE_LOST) for child in children),
            **verdict,
        }


def _watch(servers: Stack, children: Sequence[Child], messages: int) -> Figures:
    """Poll until all is done."""
    used = {"memory_mb": 0.0, "rss_mb": 0.0, "connections": 0}

    def is_done() -> bool:
        now = {
            "memory_mb": round(sum(memory_mb(child.pid) for child in children), 1),
            "rss_mb": round(sum(memory_mb(child.pid, "Rss") for child in children), 1),
            "connections": servers.value(CONNECTIONS),
        }
        used.update({name: max(used[name], value) for name, value in now.items()})
        return checking.processed(servers) >= messages

    servers.wait_for(is_done, "the last message", PATIENCE_S, POLL_S)
    return used


def _at_once(notes: Sequence[Any]) -> Figures:
    """Count how many handlers ran at the busiest moment, and when that was, counted from the first."""
    running = most = 0
    at = notes[0]["at"]
    for note in notes:
        running += 1 if note["event"] == "begin" else -1
        if running > most:
            most, at = running, note["at"]
    return {"at_once": most, "all_in_s": round(at - notes[0]["at"], 2)}
