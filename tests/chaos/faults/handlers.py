"""Faults of the bot that runs in a worker: it blocks its event loop, or hangs while its leases are lost."""

import signal
import time

import redis

from tests.chaos.faults.strike import Steps, Strike
from tests.chaos.service.orders import BLOCK, FOR_EVER_S, HANG, Order, Orders
from tests.chaos.service.stack import SLOTS

ANSWERS_S = 2
TAKEN_S = 5.0
"""How long an order waits for a run to take it."""
BLOCKS_S = (1.0, 8.0)
HANGS_S = (4.0, 8.0)
NOTICED_S = 15.0
"""What a worker may take, all in all, to find out that it cannot work, and to end."""
WHOLE_S = TAKEN_S + NOTICED_S + 1.0


def block_loop(strike: Strike) -> Steps:
    """Let one handler of an async bot block the loop that all its turns share: for some seconds, or for ever."""
    dice = strike.dice
    lasts_s = dice.choice((dice.uniform(*BLOCKS_S), FOR_EVER_S))
    yield from _ordered(strike, Order(BLOCK, lasts_s), 1)
    yield from _until_replaced(strike, lasts_s)


def hang_over_flush(strike: Strike) -> Steps:
    """Let handlers hang, some or one in every slot, and Redis forget their leases meanwhile."""
    dice = strike.dice
    count = dice.choice((1, SLOTS // 2, SLOTS))
    lasts_s = FOR_EVER_S if count == SLOTS else dice.uniform(*HANGS_S)
    yield from _ordered(strike, Order(HANG, lasts_s), count)
    try:
        with redis.Redis.from_url(strike.stack.redis.url, socket_timeout=ANSWERS_S) as client:
            client.flushall()
    except redis.RedisError:
        strike.is_missed = True  # another fault has Redis
    yield from _until_replaced(strike, lasts_s)


def _ordered(strike: Strike, order: Order, count: int) -> Steps:
    """Give an order, and wait until all of it is taken."""
    orders = Orders(strike.stack.folder.history, strike.place)
    orders.give(order, count)
    ends = time.monotonic() + TAKEN_S
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
