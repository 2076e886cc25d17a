"""Health checks: whether this process lives, and whether it can do its work.

`serving` answers both beside requests: the first in its loop, which refuses it once a thread or a task hangs for good.
"""

import time
from collections.abc import Callable
from typing import Final

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from onelane.bootstrap import Services
from onelane.errors import LanesDenied, LanesForeign, LanesUnavailable, StoreDenied, StoreUnavailable
from onelane.inbox.fullness import Fullness
from onelane.postgres import migrations
from onelane.postgres.db import Database

ALIVE: Final = "/healthz"
READY: Final = "/readyz"
CHECKS_S: Final = 10.0
"""After it the last check does not begin. Each has a deadline of its own; all of them end before a thread hangs."""


class Schema:
    """Whether the database has what this process calls. Once it has, it stays so.

    What differs later is the next release's, whose functions this one may call until it is replaced.
    """

    is_current = False

    def fault(self, database: Database) -> str | None:
        """Return `pending` for a database that has not been brought to this release."""
        self.is_current = self.is_current or not migrations.pending(database)
        return None if self.is_current else "pending"


def blueprint(services: Services, fullness: Fullness) -> Blueprint:
    """Serve /healthz and /readyz."""
    pages, schema = Blueprint("health", __name__), Schema()

    @pages.get(ALIVE)
    def alive() -> ResponseReturnValue:
        return jsonify(status="ok")

    @pages.get(READY)
    def ready() -> ResponseReturnValue:
        """Name what is wrong, from a fixed list: no host, no address, no error text."""
        ends = time.monotonic() + CHECKS_S
        checks = {
            "postgres": _state(lambda: _postgres_faults(services.database)),
            "redis": _state(lambda: _redis_faults(services)),
        }
        is_known = checks["postgres"] == "ok" and time.monotonic() < ends
        checks["migrations"] = _state(lambda: schema.fault(services.database)) if is_known else "unknown"
        is_ready = set(checks.values()) == {"ok"}
        inbox = "full" if fullness.is_full else "ok"  # new processes must be able to take over all the same
        return jsonify(status="ok" if is_ready else "not ready", **checks, inbox=inbox), 200 if is_ready else 503

    return pages


def _postgres_faults(database: Database) -> str | None:
    """Return `read-only` for a standby, or a server that was told to take no writes: no webhook can be accepted."""
    database.ping()
    row = database.row("SELECT current_setting('transaction_read_only') = 'on' AS is_read_only")
    return "read-only" if row and row.is_read_only else None


def _redis_faults(services: Services) -> str | None:
    """Return `evicting` where workers take no lanes. A host that hides its policy counts as fit."""
    services.lanes.probe()
    return "evicting" if services.lanes.evicting_policy() and not services.settings.redis_may_evict else None


def _state(check: Callable[[], str | None]) -> str:
    """Run one check; `check` raises, or returns what is wrong, or None. What `refuses` needs another setting."""
    try:
        return check() or "ok"
    except LanesForeign:
        return "another deployment's"
    except (StoreDenied, LanesDenied):
        return "refuses"
    except (StoreUnavailable, LanesUnavailable):
        return "unavailable"
