"""A handler may fork; its child must not go on as a worker.

A forked child is a copy of the worker with one thread. As it begins it loses our connections, without a byte being sent
on them, and obeys signals as any program does. A fork waits for connections that are being made: nobody knows them yet.
The child ends where it would leave the handler: what comes then is the worker's own code. Children that C code forks,
behind Python's back, are only stopped there.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from threading import Condition, Event
from typing import Protocol
from weakref import WeakSet

EXIT_FAILED = 1
FORK_WAITS_S = 5.0
"""For so long a fork waits for connections that are being made; a server that does not answer holds up no handler."""


class Connected(Protocol):
    """Something with a descriptor; without one its `fileno` raises, or returns -1."""

    def fileno(self) -> int:
        """Return the descriptor's number."""


class Making:
    """How many connections are being made. A fork waits until it is none, and none begins while there is a fork."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._count = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Make a connection in this block, and give it to `keep_from_children`."""
        with self._changed:
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def hold(self) -> None:
        """Let none begin, once those that are being made are made or have had their time."""
        self._changed.acquire()
        self._changed.wait_for(lambda: self._count == 0, FORK_WAITS_S)

    def go_on(self) -> None:
        """Let them begin again."""
        self._changed.release()

    def forget(self) -> None:
        """Go on in a child, where nobody is left who makes one."""
        self._count = 0
        self.go_on()


_making = Making()
_ours: WeakSet[Connected] = WeakSet()
_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
_forked = Event()


def keep_from_children(connection: Connected) -> None:
    """Take `connection` away from every child that is forked while it is open."""
    _ours.add(connection)


def making_a_connection() -> AbstractContextManager[None]:
    """Return a block in which a connection is made and given to `keep_from_children`: a fork waits for its end."""
    return _making.one()


def is_child() -> bool:
    """Whether this process is a child that a handler forked."""
    return _forked.is_set()


def end_in_children(loop: asyncio.AbstractEventLoop) -> None:
    """End a child that is forked in a coroutine as it comes back to `loop`, where other users' coroutines wait.

    By the socket that wakes the loop a child would wake ours.
    """
    _loops.add(loop)
    keep_from_children(loop._ssock)  # type: ignore[attr-defined]  # noqa: SLF001 - nothing public names them
    keep_from_children(loop._csock)  # type: ignore[attr-defined]  # noqa: SLF001 - as above


@contextmanager
def children_end_here() -> Iterator[None]:
    """End a process that leaves this block and is not the one that entered it, however it leaves."""
    entered_by, code = os.getpid(), 0
    try:
        yield
    except BaseException as error:
        code = _exit_code(error)
        raise
    finally:
        if os.getpid() != entered_by:
            os._exit(code)


@cache
def guard() -> None:
    """Begin to guard this process, once: it is going to run handlers."""
    os.register_at_fork(before=_making.hold, after_in_parent=_making.go_on, after_in_child=_leave)


def _exit_code(error: BaseException) -> int:
    """Return what Python itself would exit with."""
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        return (error.code or 0) & 0xFF
    return EXIT_FAILED


def _leave() -> None:
    """Make a plain process of a child that was forked just now. No other thread runs in it."""
    _forked.set()
    _making.forget()
    # A number stays taken until its object closes it: closed now, it could be another's by then.
    nothing = os.open(os.devnull, os.O_RDWR)
    for connection in list(_ours):
        with suppress(Exception):
            os.dup2(nothing, connection.fileno(), inheritable=False)
    os.close(nothing)
    for loop in list(_loops):
        loop._ready.appendleft(asyncio.Handle(os._exit, (EXIT_FAILED,), loop))  # type: ignore[attr-defined]  # noqa: SLF001 - `call_soon` would let others go first
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
