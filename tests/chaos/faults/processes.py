"""Faults of processes: killed, frozen, replaced."""

import signal

from tests.chaos.faults.strike import Steps, Strike


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


def deploy(strike: Strike) -> Steps:
    """Start a new release, later ask the old one to end, and wait for that."""
    dyno = strike.stack.dynos[strike.place]
    dyno.start()
    yield from strike.lasting()
    dyno.retire()
    while not dyno.is_alone:
        yield
