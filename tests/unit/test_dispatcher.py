"""What becomes of lanes that were leased, and that this process then cannot work."""

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from onelane.lanes.holding import Holding
from onelane.lanes.keeper import Keeper
from onelane.lanes.leased import Leased
from onelane.model import Lease
from onelane.processes.dispatcher import Dispatcher, Permit


class BrokenBerths:
    def start(self, holdings: Sequence[Holding]) -> None:
        assert holdings
        raise MemoryError


def test_lanes_whose_work_cannot_begin_are_left_to_their_leases() -> None:
    lease = Lease(user_id=uuid4(), token="w:1", fence=1)
    leased = Leased(leases=(lease,), next_due_s=None, now_ms=0, stepped_ms=0)
    lanes: Any = SimpleNamespace(kind="in", lease=lambda *_: leased)
    keeper, nothing = Keeper("w", {"timeout_s": 1}, 15, 15), cast("Any", None)
    permit = Permit(cast("Any", SimpleNamespace(name="w")), keeper, nothing, nothing, threading.Event(), 15)
    dispatcher = Dispatcher(lanes, cast("Any", BrokenBerths()), nothing, permit)
    with pytest.raises(MemoryError):
        dispatcher._lease(1)
    assert keeper.holdings == []
