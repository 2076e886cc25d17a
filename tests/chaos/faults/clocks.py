"""Faults of clocks: one is set back or ahead, by a minute to an hour, and stays so."""

from tests.chaos.faults.strike import Steps, Strike
from tests.stepping import SteppingClock

STEP_S = (60.0, 3_600.0)
AHEAD_MAX_S = 3_600.0


def step_redis(strike: Strike) -> Steps:
    """Set Redis' clock."""
    _step(strike, strike.stack.redis.clock)
    yield


def step_worker(strike: Strike) -> Steps:
    """Set the clock of a worker, with its supervisor, its helper and its children."""
    _step(strike, strike.stack.clocks[strike.target.rpartition("/")[2]])
    yield


def _step(strike: Strike, clock: SteppingClock) -> None:
    """Set a clock; it is never more than an hour wrong."""
    seconds = strike.dice.choice((-1, 1)) * strike.dice.uniform(*STEP_S)
    is_too_far = abs(clock.offset_s + seconds) > AHEAD_MAX_S
    clock.step(-seconds if is_too_far else seconds)
