"""Faults of the bot that runs in a worker: it blocks its event loop, or hangs while its leases are lost."""

import signal
import time

from redis import RedisError

from tests.chaos.faults.strike import Steps, Strike
from tests.chaos.service.orders import BLOCK, FOR_EVER_S, HANG, Order, Orders
from tests.chaos.service.stack import SLOTS

OBEYS_S = 1.0
"""What Redis may take to forget everything; all other faults wait meanwhile."""
TAKEN_S = 5.0
"""How long an order waits for a run to take it, at least: its worker may have to start first."""
BLOCKS_S = (1.0, 8.0)
HANGS_S = (4.0, 8.0)
NOTICED_S = 15.0
"""What a worker may take, all in all, to find out that it cannot work, and to end."""
TAKEN_AT_ONCE_S = 2.0
"""How soon an order is taken when everything is well."""
WHOLE_S = TAKEN_S + NOTICED_S + 1.0
SHORT_S = BLOCKS_S[1] + 1.0


def block_loop(strike: Strike) -> Steps:
    """Let one handler of an async bot block the loop that all its turns share: for some seconds, or for ever."""
    lasts_s = FOR_EVER_S if _can_be_judged(strike) else strike.dice.uniform(*BLOCKS_S)
    yield from _ordered(strike, Order(BLOCK, lasts_s), 1)
    yield from _until_replaced(strike, lasts_s)


def hang_over_flush(strike: Strike) -> Steps:
    """Let handlers hang, some or one in every slot, and Redis forget their leases meanwhile."""
    is_for_ever = _can_be_judged(strike)
    count = SLOTS if is_for_ever else strike.dice.choice((1, SLOTS // 2))
    lasts_s = FOR_EVER_S if is_for_ever else strike.dice.uniform(*HANGS_S)
    yield from _ordered(strike, Order(HANG, lasts_s), count)
    yield from _flushed(strike, lasts_s)
    yield from _until_replaced(strike, lasts_s)


def _can_be_judged(strike: Strike) -> bool:
    """Whether a worker that never can work again has the time to find that out."""
    return strike.lasts_s >= TAKEN_AT_ONCE_S + NOTICED_S


def _flushed(strike: Strike, lasts_s: float) -> Steps:
    """Let Redis forget everything while the handlers hang, as soon as it obeys: another fault may have it."""
    ends = time.monotonic() + min(lasts_s, TAKEN_S)
    while not strike.is_missed and strike.flushed_at is None and time.monotonic() < ends:
        try:
            with strike.redis(OBEYS_S) as client:
                client.flushall()
            strike.flushed_at = time.monotonic()
        except RedisError:
            yield
    strike.is_missed |= strike.flushed_at is None


def _ordered(strike: Strike, order: Order, count: int) -> Steps:
    """Give an order, and wait until all of it is taken."""
    orders = Orders(strike.stack.folder.history, strike.place)
    orders.give(order, count)
    ends = time.monotonic() + max(TAKEN_S, strike.lasts_s - BLOCKS_S[1])
    try:
        while orders.left and time.monotonic() < ends:
            yield
    finally:
        strike.is_missed = orders.left == count
        strike.is_whole = not orders.left
        orders.withdraw()


def _until_replaced(strike: Strike, lasts_s: float) -> Steps:
    """Wait until the handlers return or their process is gone; of one that stays too long, note that and kill it."""
    began = time.monotonic()
    try:
        while strike.living() and time.monotonic() < min(began + lasts_s, strike.began_at + strike.lasts_s):
            yield
    finally:
        if lasts_s == FOR_EVER_S:
            if strike.is_whole and time.monotonic() > began + NOTICED_S:
                strike.survived = strike.living()
            strike.send(signal.SIGKILL)
