"""The faults that lose answers: of the scripts of both kinds of lanes; one that has lost nothing says so."""

from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from onelane import keys
from onelane.lanes.scripts import SCRIPTS, Scripts
from tests import proxy
from tests.chaos.faults.network import drop_reply
from tests.chaos.faults.strike import Strike

SEEDS = range(60)


class PlannedDrops:
    """A proxy that keeps what it is told to lose."""

    def __init__(self) -> None:
        self.planned: list[proxy.Fault] = []

    def drop_reply(self, match: bytes, nth: int, times: int) -> proxy.Fault:
        self.planned.append(proxy.Fault(match, nth, is_before=False, times=times))
        return self.planned[-1]

    def drop_nothing(self) -> None: ...


@pytest.fixture
def drops() -> PlannedDrops:
    return PlannedDrops()


def strike_of(drops: PlannedDrops, seed: int = 0) -> Strike:
    stack = SimpleNamespace(own_proxies={}, redis_proxy=drops)
    return Strike(cast("Any", stack), "redis-proxy", 0.0, Random(seed))


def test_answers_get_lost_of_the_scripts_of_both_kinds_of_lanes(drops: PlannedDrops) -> None:
    for seed in SEEDS:
        list(drop_reply(strike_of(drops, seed)))
    lost = {fault.match for fault in drops.planned}
    for kind in (keys.IN, keys.OUT):
        digests = {text.encode() for text in Scripts(redis.Redis(), SCRIPTS, kind)._digests.values()}
        assert lost & digests, f"no script of {kind} lanes"


def test_a_drop_that_lost_nothing_has_missed(drops: PlannedDrops) -> None:
    strike = strike_of(drops)
    list(drop_reply(strike))
    assert strike.is_missed


def test_a_drop_that_lost_something_has_struck(drops: PlannedDrops) -> None:
    strike = strike_of(drops)
    strike.lasts_s = 60.0
    lasting = drop_reply(strike)
    next(lasting)
    [planned] = drops.planned
    assert any(planned.strikes(planned.match) for _ in range(planned.nth))
    lasting.close()
    assert (strike.is_missed, strike.detail.split()[-1]) == (False, "lanes")
