"""The spine can be followed: one lease, from slot to release, enters few modules, and none of them often."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from onelane.bootstrap import open_worker
from onelane.config import Settings
from onelane.deliveries import Accepted
from onelane.lanes.holding import Holding
from onelane.turns.shift import Shift
from tests import loops
from tests.rows import Rows

ROOMS = ("onelane.turns.", "onelane.lanes.", "onelane.processes.")
VALUES_AND_DRIVERS = {
    "onelane.lanes.holding",
    "onelane.turns.pacing",
    "onelane.turns.clock",
    "onelane.lanes.scripts",
    "onelane.lanes.gathering",
    "onelane.lanes.prefixed",
    "onelane.lanes.refusals",
    "onelane.turns.answers",
    "onelane.turns.ended",
    "onelane.turns.event_loop",
    "onelane.turns.handler_threads",
    "onelane.turns.hosting",
    "onelane.turns.memory",
}
"""What is held or called through: four values, what drives Redis, and the bot's side of a turn: it runs and reads."""
ENTRIES_MAX = 14
MODULES_MAX = 7


class Walk:
    """Notes every entry into one of our rooms from another."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self._entered: set[FrameType] = set()
        """A coroutine that goes on is called again."""

    def __call__(self, frame: FrameType, what: str, _argument: Any) -> None:
        if what == "call" and frame.f_back is not None and frame not in self._entered:
            self._entered.add(frame)
            to, back = _module(frame), _module(frame.f_back)
            if to != back and to.startswith(ROOMS) and to not in VALUES_AND_DRIVERS:
                self.entries.append(f"{to}.{frame.f_code.co_qualname}")


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


@pytest.mark.parametrize("messages", [1, 3])
def test_one_lease_is_a_short_walk(
    settings: Settings, accept: Callable[..., Accepted], messages: int, rows: Rows
) -> None:
    for _ in range(messages):
        user_id = accept("alice").user_id
    worker = open_worker(settings.model_copy(update={"lock_ttl_s": 60, "quantum_s": 60}))
    slots = worker.runner._slots
    [lease] = worker.services.lanes.lease("w", 0, 1, 60).leases
    shift = Shift(Holding(lease), slots._workplace)
    slots._add(shift)
    walk = Walk()

    async def walked() -> None:
        sys.setprofile(walk)
        await slots._work(shift)
        sys.setprofile(None)

    loops.run(walked())
    worker.services.close()
    assert rows.states(user_id) == ["processed"] * messages
    modules = {entry.split(".")[1] + "." + entry.split(".")[2] for entry in walk.entries}
    more = 7 * (messages - 1)
    assert len(walk.entries) <= ENTRIES_MAX + more, "\n".join(walk.entries)
    assert len(modules) <= MODULES_MAX, modules
