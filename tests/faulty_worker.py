"""A worker process with one planted fault: it kills or stops itself before or after its nth call of something.

FAULT="kill before settle_turns 1": the signal, the side, which call of what: an SQL function, a script, handler, send.
Nothing of this is in the product: the calls are wrapped from outside.
"""

import os
import signal
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from inspect import iscoroutine
from typing import Any

from onelane.bootstrap import open_worker
from onelane.config import Settings
from onelane.lanes.keeper import Keeper
from onelane.lanes.scripts import Scripts
from onelane.outbox.sending import Sending
from onelane.postgres.db import Database
from onelane.telemetry.log import configure
from onelane.turns.hosting import Host

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
DEED, SIDE, CALL, NR = os.environ["FAULT"].split()
calls = {CALL: 0}


def strike() -> None:
    """Signal this very thread: a signal to the process may reach another first, and this one would go on meanwhile.

    One that is stopped goes on with what it was in before it hears what became of its leases, however busy it is here.
    """
    if DEED == "stop":
        Keeper._lose = hear_nothing  # type: ignore[assignment, method-assign]
    signal.pthread_kill(threading.get_ident(), SIGNALS[DEED])


def hear_nothing(_keeper: Keeper, _tokens: set[str]) -> None:
    """Leave leases that are lost in use."""


def wrap(owner: type, method: str, name_of: Callable[..., str]) -> None:
    """Signal ourselves around the call that the fault names."""
    original = getattr(owner, method)

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        is_it = name_of(*args) == CALL
        calls[CALL] += is_it
        is_now = is_it and calls[CALL] == int(NR)
        if is_now and SIDE == "before":
            strike()
        answer = original(self, *args, **kwargs)
        if not is_now or SIDE == "before":
            return answer
        if iscoroutine(answer):
            return after(answer)
        if isinstance(answer, Future):
            answer.add_done_callback(lambda _: strike())
        else:
            strike()
        return answer

    async def after(answer: Awaitable[Any]) -> Any:
        answered = await answer
        strike()
        return answered

    setattr(owner, method, wrapped)


def function_in(deadline_s: float, query: str, params: Any) -> str:
    """Name the SQL function of a call: `SELECT * FROM name(…`."""
    return query.partition("(")[0].split()[-1]


if __name__ == "__main__":
    wrap(Database, "_within", function_in)
    wrap(Scripts, "run", lambda name, *args: name)
    wrap(Scripts, "submit", lambda read, name, *args: name)
    wrap(Host, "run", lambda *_: "handler")
    wrap(Sending, "call", lambda *_: "send")
    settings = Settings.from_environment()
    configure(settings.log_level, "json")
    runner = open_worker(settings)
    signal.signal(signal.SIGTERM, runner.stop)
    os._exit(runner.run())
