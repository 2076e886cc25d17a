"""Faults between the service and its servers, and of the providers' APIs to which it sends."""

import time
from collections.abc import Callable

import redis

from onelane import keys
from onelane.lanes.scripts import SCRIPTS, Scripts
from onelane.testing.fake_providers import Fault
from tests import proxy
from tests.chaos.faults.strike import Steps, Strike

CUT_AGAIN_S = 0.4
DELAY_S = (0.05, 0.3)
SLOW_S = (0.08, 0.25)
SILENT_AT_ONCE = 0.5
DROPS_MAX = 6
DROP_EACH_MAX = 4
API_SHARE = (0.1, 0.5)
API_SEEDS = 1_000
DROPS = (
    *("accept_and_drop", "accept_and_half", "accept_and_reset", "accept_and_garbage", "accept_twice"),
    *("closed", "half", "garbage", "reset", "closes"),
)
SQL_CALLS = ("accept", "begin_turns", "settle_turns", "begin_sends", "settle_sends")
SCRIPT_CALLS = ("enqueue", "lease", "renew", "finish", "park", "bury")
LANES = (keys.IN, keys.OUT)


def delay(strike: Strike) -> Steps:
    """Hold every request up."""
    yield from _delay(strike, DELAY_S)


def slow(strike: Strike) -> Steps:
    """Let every call take as long as on a server that is far off, or busy."""
    yield from _delay(strike, SLOW_S)


def cut(strike: Strike) -> Steps:
    """Cut all connections, again and again while the fault lasts."""
    again_at = 0.0
    while time.monotonic() < strike.began_at + strike.lasts_s:
        if time.monotonic() > again_at:
            strike.proxy.cut()
            again_at = time.monotonic() + CUT_AGAIN_S
        yield


def black_hole(strike: Strike) -> Steps:
    """Swallow everything."""
    with strike.proxy.black_hole():
        yield from strike.lasting()


def silence(strike: Strike) -> Steps:
    """Let all connections go silent that there are, or also those that are made meanwhile. Nothing is ever cut.

    When it is over, new connections pass; those that went silent stay so until the service gives them up.
    """
    if strike.dice.random() < SILENT_AT_ONCE:
        strike.proxy.silence()
        yield from strike.lasting()
    else:
        with strike.proxy.silencing():
            yield from strike.lasting()


def refuse(strike: Strike) -> Steps:
    """Be away."""
    with strike.proxy.refusing():
        yield from strike.lasting()


def one_server(strike: Strike) -> Steps:
    """Keep one worker from one of its servers, in one way or another; all others are well."""
    yield from strike.dice.choice((black_hole, silence, refuse))(strike)


def drop_reply(strike: Strike) -> Steps:
    """Lose some answers."""
    yield from _drop(strike, strike.proxy.drop_reply)


def drop_request(strike: Strike) -> Steps:
    """Lose some requests."""
    yield from _drop(strike, strike.proxy.drop_request)


def api_errors(strike: Strike) -> Steps:
    """Let the providers' APIs refuse for a moment, or fail, whatever became of the request."""
    yield from _api(strike, Fault("limit", wait_s=0.5), "500", "502_accepted", "503")


def api_hangs(strike: Strike) -> Steps:
    """Let them keep some of their callers waiting."""
    yield from _api(strike, "unread", "silent", "accept_and_silent", Fault("answer", times=1, wait_s=1.0))


def api_drops(strike: Strike) -> Steps:
    """Let them break connections, before or after they have taken the request, or double it themselves."""
    yield from _api(strike, *DROPS)


def api_deaf(strike: Strike) -> Steps:
    """Let them refuse connections."""
    strike.stack.fakes.tell("deaf", for_s=strike.lasts_s)
    yield from strike.lasting()


def api_statuses(strike: Strike) -> Steps:
    """Let statuses come before the answer, late, shuffled, doubled, or never."""
    fakes = strike.stack.fakes
    fakes.call_back(when=strike.dice.choice(["before", "late", "never"]), shuffled=True, doubled=True)
    try:
        yield from strike.lasting()
    finally:
        fakes.call_back()


def _delay(strike: Strike, between_s: tuple[float, float]) -> Steps:
    strike.proxy.delay_s = strike.dice.uniform(*between_s)
    try:
        yield from strike.lasting()
    finally:
        strike.proxy.delay_s = 0.0


def _drop(strike: Strike, drop: Callable[[bytes, int, int], proxy.Fault]) -> Steps:
    """Lose some; where nothing has asked for what gets lost, the fault is missed."""
    strike.detail, match = _match(strike)
    fault = drop(match, strike.dice.randint(1, DROP_EACH_MAX), strike.dice.randint(1, DROPS_MAX))
    try:
        yield from strike.lasting()
    finally:
        strike.proxy.drop_nothing()
        strike.is_missed = not fault.struck.is_set()


def _match(strike: Strike) -> tuple[str, bytes]:
    """Choose what gets lost: its name, and a word by which such requests are known."""
    if strike.place == "postgres-proxy":
        call = strike.dice.choice(SQL_CALLS)
        return call, call.encode()
    lane, script = strike.dice.choice(LANES), strike.dice.choice(SCRIPT_CALLS)
    return f"{script} of {lane} lanes", Scripts(redis.Redis(), SCRIPTS, lane)._digests[script].encode()


def _api(strike: Strike, *faults: str | Fault) -> Steps:
    fakes, dice = strike.stack.fakes, strike.dice
    fakes.play(*faults, share=dice.uniform(*API_SHARE), seed=dice.randrange(API_SEEDS))
    try:
        yield from strike.lasting()
    finally:
        fakes.clear()
