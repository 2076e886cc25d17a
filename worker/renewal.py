"""Renew a worker's leases from a process of its own, which nothing that a handler does can hold up.

Started by `lock.Keeper` with one end of a socket. Line by line it hears, as JSON, how to reach Redis, then again and
again which leases are in use; it answers with the tokens that are lost, or with what kept it from asking.
It ends with its parent, however that ends: the leases then run out. A parent that is stopped (SIGSTOP) or has said
nothing for the stall limit gets no renewal either, so that others can take its lanes over.
"""

import json
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from worker.errors import LanesUnavailable
from worker.scripts import SCRIPTS, Scripts, connect

RENEWALS_PER_TTL = 3
RETRY_S = 0.5


class Renewal:
    """The leases that the parent named last, renewed a third of their life before they need it."""

    def __init__(self, wire: socket.socket, parent_pid: int, told: dict[str, Any]) -> None:
        self._wire = wire
        self._parent_pid = parent_pid
        self._ttl_s = float(told["ttl_s"])
        self._stall_limit_s = float(told["stall_limit_s"])
        self._scripts = Scripts(connect(**told["redis"]), SCRIPTS)
        self._leases: dict[str, str] = {}
        """User by token."""
        self._heard_at = self._renewed_at = time.monotonic()
        self._renew_at = self._heard_at

    def run(self) -> None:
        """Renew until the parent is gone."""
        self._tell({"ready": True})
        for line in lines(self._wire, lambda: self._renew_at - time.monotonic()):
            if line is not None:
                self._heard_at = time.monotonic()
                self._leases = json.loads(line)
            if time.monotonic() >= self._renew_at:
                self._renew_at = time.monotonic() + self._renew()

    def _renew(self) -> float:
        """Renew once, tell the parent how it went, and return the seconds until the next time."""
        if not self._leases or not self._parent_is_well():
            self._renewed_at = time.monotonic()
            return self._ttl_s / RENEWALS_PER_TTL
        pairs = [part for token, user in self._leases.items() for part in (user, token)]
        try:
            lost = self._scripts.run("renew", "", round(self._ttl_s * 1000), *pairs)
        except LanesUnavailable as error:
            self._tell({"failed": str(error)})
            if time.monotonic() - self._renewed_at > self._ttl_s:
                self._tell({"lost": list(self._leases)})  # by now they have run out
            return RETRY_S
        self._renewed_at = time.monotonic()
        if lost:
            self._tell({"lost": [token.decode() for token in lost]})
        return self._ttl_s / RENEWALS_PER_TTL

    def _parent_is_well(self) -> bool:
        has_spoken = time.monotonic() - self._heard_at < self._stall_limit_s
        return has_spoken and not _is_stopped(self._parent_pid)

    def _tell(self, said: dict[str, Any]) -> None:
        self._wire.sendall(json.dumps(said).encode() + b"\n")


def lines(wire: socket.socket, wait_s: Callable[[], float]) -> Iterator[bytes | None]:
    """Yield lines as they come, and None when `wait_s()` is over; end when the other side has gone."""
    heard = b""
    while True:
        readable, _, _ = select.select([wire], [], [], max(0.0, wait_s()))
        if not readable:
            yield None
            continue
        received = wire.recv(65_536)
        if not received:
            return
        *whole, heard = (heard + received).split(b"\n")
        yield from whole


def _is_stopped(pid: int) -> bool:
    """Tell whether the system has stopped a process; where it does not say, it has not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"T", "t"}
    except (OSError, IndexError):
        return False


def main() -> None:
    """Take over where `lock.Keeper` started us."""
    # A platform's signals go to every process; this one ends when its parent has.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as wire:
        told = b""
        while not told.endswith(b"\n"):
            received = wire.recv(1)
            if not received:
                return
            told += received
        try:
            Renewal(wire, int(sys.argv[2]), json.loads(told)).run()
        except (BrokenPipeError, ConnectionResetError):
            return


if __name__ == "__main__":
    main()
