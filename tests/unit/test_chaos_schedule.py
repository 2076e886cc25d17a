from collections import Counter
from itertools import combinations

import pytest

from tests.chaos.faults.catalogue import FAULTS
from tests.chaos.faults.schedule import ALONE, ALONE_AFTER_S, BOT_TRACKS, CALM_S, ROUND_S, SETTLE_S, TRACKS, plan
from tests.chaos.faults.strike import place_of
from tests.conftest import slow_after

SEEDS = range(20)
MINUTES_S = 600
PARTIAL = [name for name, kind in FAULTS.items() if kind.weight > 1]
PLANNED_MIN = 9
"""In each run. Seven are to strike: some find no target, and orders to the bot nobody who takes them."""


def test_a_seed_always_gives_the_same_schedule_and_another_seed_another() -> None:
    assert plan(7, MINUTES_S) == plan(7, MINUTES_S)
    assert plan(7, MINUTES_S) != plan(8, MINUTES_S)


@pytest.mark.parametrize("seed", slow_after(5, SEEDS))
def test_two_faults_never_strike_the_same_place_at_once_and_never_too_many_others(seed: int) -> None:
    faults = plan(seed, MINUTES_S).faults
    at_once = [
        (one, two) for one, two in combinations(faults, 2) if one.begins_s < two.ends_s and two.begins_s < one.ends_s
    ]
    assert all(place_of(one.target) != place_of(two.target) for one, two in at_once)
    for fault in faults:
        beside = [one for one in faults if one != fault and one.begins_s <= fault.begins_s < one.ends_s]
        assert len(beside) < TRACKS + BOT_TRACKS


@pytest.mark.parametrize("seed", slow_after(5, SEEDS))
def test_every_round_has_a_calm_which_no_storm_comes_near(seed: int) -> None:
    schedule = plan(seed, 10 * ROUND_S)
    assert [calm.ends_s for calm in schedule.calms] == [ROUND_S * nr for nr in range(1, 11)]
    assert all(calm.ends_s - calm.begins_s == CALM_S for calm in schedule.calms)
    for calm in schedule.calms:
        near = [one for one in schedule.faults if one.ends_s > calm.begins_s - SETTLE_S and one.begins_s < calm.ends_s]
        assert [(one.name, one.ends_s) for one in near] == [(ALONE, calm.begins_s - SETTLE_S + ALONE_AFTER_S)]


@pytest.mark.parametrize("seed", slow_after(5, SEEDS))
def test_a_worker_dies_in_every_round_while_nothing_else_goes_on(seed: int) -> None:
    schedule = plan(seed, 10 * ROUND_S)
    for calm in schedule.calms:
        [alone] = [one for one in schedule.faults if one.begins_s == calm.begins_s - SETTLE_S + ALONE_AFTER_S]
        before = [one for one in schedule.faults if one.begins_s < alone.begins_s]
        assert alone.name == ALONE
        assert max(one.ends_s for one in before) <= alone.begins_s - ALONE_AFTER_S + 1e-6


def test_a_run_of_ten_minutes_has_every_fault() -> None:
    assert {fault.name for fault in plan(1, MINUTES_S).faults} == set(FAULTS)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_partial_failures_come_often_enough_to_be_judged(seed: int) -> None:
    planned = Counter(fault.name for fault in plan(seed, MINUTES_S).faults)
    assert {name: planned[name] for name in PARTIAL if planned[name] < PLANNED_MIN} == {}


@pytest.mark.parametrize("seed", slow_after(5, SEEDS))
def test_a_fault_is_never_cut_short_below_what_it_lasts_at_least(seed: int) -> None:
    assert all(fault.lasts_s >= FAULTS[fault.name].lasts_s[0] for fault in plan(seed, MINUTES_S).faults)


def test_a_run_without_faults_is_one_calm() -> None:
    schedule = plan(1, 18, ())
    assert schedule.faults == ()
    assert [(calm.begins_s, calm.ends_s) for calm in schedule.calms] == [(0, 18)]


def test_a_short_run_is_all_storm() -> None:
    schedule = plan(1, 12, ["cut"])
    assert schedule.calms == ()
    assert {fault.name for fault in schedule.faults} == {"cut"}
