"""Faults of clocks: one is set back or ahead, and stays so."""

from tests.chaos.faults.strike import Steps, Strike
from tests.stepping import SteppingClock

REDIS_STEP_S = (60.0, 3_600.0)
WORKER_STEP_S = (20.0, 240.0)
"""What a worker signs is refused by who receives it when its clock is five minutes wrong: that is no fault of ours."""


def step_redis(strike: Strike) -> Steps:
    """Set Redis' clock."""
    _step(strike, strike.stack.redis.clock, REDIS_STEP_S)
    yield


def step_worker(strike: Strike) -> Steps:
    """Set the clock of a worker, with its supervisor, its helper and its children."""
    _step(strike, strike.stack.clocks[strike.target.rpartition("/")[2]], WORKER_STEP_S)
    yield


def _step(strike: Strike, clock: SteppingClock, between_s: tuple[float, float]) -> None:
    """Set a clock; it is never more wrong than after the longest step."""
    seconds = strike.dice.choice((-1, 1)) * strike.dice.uniform(*between_s)
    is_too_far = abs(clock.offset_s + seconds) > between_s[1]
    clock.step(-seconds if is_too_far else seconds)
