"""Renew a worker's leases from a process of its own, which nothing that a handler does can hold up.

Started by `helper.Helper` with one end of a wire. It receives how to reach Redis, then again and again which leases are
in use, and answers each; it sends the tokens that are lost, or what kept it from renewing. It ends when the process
that started it has ended, whoever else may hold the wire's other end: the leases then run out. A parent that is stopped
(SIGSTOP) or has sent nothing for the stall limit gets no renewal either, so that others can take its lanes over.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from onelane import keys
from onelane.errors import LanesUnavailable
from onelane.lanes.clock import LanesClock
from onelane.lanes.scripts import SCRIPTS, Owner, Scripts, connect, text_of
from onelane.wire import Wire

RENEWALS_PER_TTL = 3
RENEWED_MAX = 500
"""Leases in one call, which Redis makes in about 3 ms."""
SILENCES_PER_LIFE = 4
"""Three beats of the parent; less than the time between two renewals."""
RETRY_S = 0.5
STALL_LIMIT_S = 10.0
PARENT_TICK_S = 1.0
"""How often it looks whether its parent lives."""
TAKEN = {"taken": True}


class Renewer:
    """The leases that the parent sent last, renewed a third of their life before they need it."""

    def __init__(self, wire: Wire, parent_pid: int, settings: dict[str, Any]) -> None:
        self._wire = wire
        self._parent_pid = parent_pid
        self._worker = str(settings["worker"])
        self._ttl_s = float(settings["ttl_s"])
        self._stall_limit_s = float(settings["stall_limit_s"])
        self._heard_s = min(self._ttl_s, self._stall_limit_s) / SILENCES_PER_LIFE
        client, owner = connect(**settings["redis"]), Owner(lambda: settings["database_id"])
        self._scripts = {kind: Scripts(client, SCRIPTS, kind, owner) for kind in keys.KINDS}
        self._clock = LanesClock()
        self._leases: dict[str, dict[str, str]] = {}
        """Of each kind: user by token."""
        self._received_at = self._renewed_at = time.monotonic()
        self._renew_at = self._received_at

    def run(self) -> None:
        """Renew until the parent is gone."""
        self._wire.send(TAKEN)
        while os.getppid() == self._parent_pid:
            if time.monotonic() >= self._renew_at:
                self._renew_at = time.monotonic() + self._renew()
            leases = self._wire.receive(min(PARENT_TICK_S, max(0.0, self._renew_at - time.monotonic())))
            if leases is not None:
                self._received_at = time.monotonic()
                self._leases = leases
                self._wire.send(TAKEN)

    def _renew(self) -> float:
        """Renew once, send the parent how it went, and return the seconds until the next time.

        Also without leases: others see by it that the worker lives, although a lane that it let go may be late. Of a
        parent that has just gone silent they hear nothing: a lease that it took may not have come here any more.
        """
        if not self._parent_is_well():
            self._renewed_at = time.monotonic()
            return self._ttl_s / RENEWALS_PER_TTL
        try:
            heard = self._worker if self._silence_s() < self._heard_s else ""
            stepped_ms, lost = self._renew_all(heard)
        except LanesUnavailable as error:
            if self._leases:
                self._wire.send({"failed": str(error)})
            if time.monotonic() - self._renewed_at > self._ttl_s:
                self._wire.send({"lost": [token for leases in self._leases.values() for token in leases]})  # run out
            return RETRY_S
        self._renewed_at = time.monotonic()
        if stepped_ms:
            self._wire.send({"stepped_ms": stepped_ms})
        if lost:
            self._wire.send({"lost": lost})
        return self._ttl_s / RENEWALS_PER_TTL

    def _renew_all(self, heard: str) -> tuple[int, list[str]]:
        """Renew the leases of each kind; without any, the worker is heard all the same."""
        stepped_ms, lost = 0, []
        for kind, leases in (self._leases or {keys.IN: {}}).items():
            stepped, lost_of_kind = renew(self._scripts[kind], heard, leases, self._ttl_s, self._clock)
            stepped_ms += stepped
            lost += lost_of_kind
        return stepped_ms, lost

    def _parent_is_well(self) -> bool:
        return self._silence_s() < self._stall_limit_s and not _is_stopped(self._parent_pid)

    def _silence_s(self) -> float:
        return time.monotonic() - self._received_at


def renew(
    scripts: Scripts,
    worker: str,
    leases: Mapping[str, str],
    ttl_s: float,
    clock: LanesClock,
    now_ms: int | str = "",
) -> tuple[int, list[str]]:
    """Extend a worker's `leases` (user by token) by `ttl_s` from now; with an empty name the worker is not heard.

    Return by how many ms Redis' clock has stepped, and the tokens of the leases that are lost. Between the calls for
    RENEWED_MAX of them Redis does what others ask.
    """
    pairs = list(leases.items())
    stepped_ms, all_lost = 0, []
    for start in range(0, max(1, len(pairs)), RENEWED_MAX):
        parts = [part for token, user in pairs[start : start + RENEWED_MAX] for part in (user, token)]
        answer = scripts.run("renew", now_ms, round(ttl_s * 1000), worker, clock.expected(), *parts)
        now, stepped, *lost = map(text_of, answer)
        clock.note(float(now))
        stepped_ms += int(stepped)
        all_lost += lost
    return stepped_ms, all_lost


def _is_stopped(pid: int) -> bool:
    """Whether the system has stopped a process; False where /proc does not show it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in {"T", "t"}
    except (OSError, IndexError):
        return False


def main() -> None:
    """Take over where `helper.Helper` started us."""
    # A platform's signals go to every process; this one ends when its parent has.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wire = Wire.inherited(int(sys.argv[1]), STALL_LIMIT_S)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        Renewer(wire, int(sys.argv[2]), wire.receive(None)).run()


if __name__ == "__main__":
    main()
