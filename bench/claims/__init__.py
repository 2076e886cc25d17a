"""The claims, one file each: what is measured, beside whom, and what was to be reached."""

from collections.abc import Callable, Mapping
from typing import Final

from bench.claims import (
    async_slots,
    cost,
    drain,
    fairness,
    flushall,
    growth,
    idle,
    lanes,
    live,
    memory,
    replies,
    skewed_drain,
    slow_handlers,
    storm,
    takeover,
    webhook,
    whole_way,
)
from bench.plan import Plan
from bench.result import Result

CLAIMS: Final[Mapping[str, Callable[[Plan], Result]]] = {
    claim.NAME: claim.measure
    for claim in (
        whole_way,
        drain,
        skewed_drain,
        live,
        webhook,
        fairness,
        slow_handlers,
        async_slots,
        lanes,
        memory,
        cost,
        idle,
        growth,
        flushall,
        takeover,
        replies,
        storm,
    )
}
"""Each claim's script by its name, in the order of the document."""
RUNS: Final[Mapping[str, int]] = {storm.NAME: storm.RUNS}
"""Those that have a number of rounds of their own."""
