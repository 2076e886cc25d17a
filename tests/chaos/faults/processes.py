"""Faults of processes: killed, frozen, replaced."""

import signal

from tests.chaos.faults.strike import Steps, Strike
from tests.chaos.service.dynos import age_s

HELPER_STARTS_S = 3.0
HELPER_NOTICED_S = 4.0
"""What a worker may take to replace a silent helper: half a lease's life, a beat, and some for a busy machine."""


def kill(strike: Strike) -> Steps:
    """Kill a process; a platform then kills what a dead head has left."""
    strike.send(signal.SIGKILL)
    try:
        yield from strike.lasting()
    finally:
        if strike.place in strike.stack.dynos:
            strike.stack.dynos[strike.place].sweep()


def freeze(strike: Strike) -> Steps:
    """Stop a process, and let it go on."""
    try:
        strike.send(signal.SIGSTOP)
        yield from strike.lasting()
    finally:
        strike.send(signal.SIGCONT)


def freeze_helper(strike: Strike) -> Steps:
    """Stop the helper that renews a worker's leases: its parent must notice, and replace it.

    One that has just been started may still owe its first answer, which its parent awaits for longer.
    """
    is_new = any(age_s(pid) < HELPER_STARTS_S for pid in strike.struck)
    try:
        strike.send(signal.SIGSTOP)
        yield from strike.lasting()
        if strike.lasts_s > HELPER_NOTICED_S and not is_new:
            strike.survived = [pid for pid in strike.struck if strike.is_candidate(pid)]
    finally:
        strike.send(signal.SIGCONT)


def deploy(strike: Strike) -> Steps:
    """Start a new release, later ask the old one to end, and wait for that."""
    dyno = strike.stack.dynos[strike.place]
    dyno.start()
    yield from strike.lasting()
    dyno.retire()
    while not dyno.is_alone:
        yield
