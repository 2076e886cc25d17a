"""Who works: heartbeats by Redis' clock, beside RQ's, which are by each machine's own."""

import json
from collections.abc import Callable
from typing import Final, NamedTuple

from onelane.lanes.scripts import Scripts
from onelane.model import JsonObject

KEPT_S: Final = 3_600
"""How long a silent worker is remembered."""
FORGOTTEN_MAX: Final = 10_000
NAMES_PER_SCAN: Final = 500


class Noted(NamedTuple):
    """What a worker that notes its heartbeat learns."""

    is_suspended: bool
    """Whether `rq suspend` is on."""
    is_known: bool
    """Whether RQ knows the worker; if not, nothing is shown of it."""


class Roster:
    """The workers on one Redis, by their names."""

    def __init__(self, scripts: Scripts, now_ms: Callable[[], int | str]) -> None:
        self._scripts = scripts
        self._now_ms = now_ms

    def note(self, worker: str, news: JsonObject | None = None) -> Noted:
        """Note that a worker lives, and what RQ's tools are to show of it, as register.lua has it."""
        shown = "" if news is None else json.dumps(news)
        suspended, known = self._scripts.run("register", self._now_ms(), worker, KEPT_S * 1000, shown)
        return Noted(bool(suspended), bool(known))

    def forget_dead(self) -> None:
        """Take the names of dead workers off RQ's list, about FORGOTTEN_MAX at most."""
        cursor = 0
        for _ in range(0, FORGOTTEN_MAX, NAMES_PER_SCAN):
            cursor = int(self._scripts.run("forget_workers", cursor, NAMES_PER_SCAN))
            if cursor == 0:
                return
