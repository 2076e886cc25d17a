"""Whether this process lives, and whether it can do its work."""

from collections.abc import Callable

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from worker import migrations
from worker.bootstrap import Services
from worker.errors import LanesUnavailable, StoreUnavailable


def blueprint(services: Services) -> Blueprint:
    """Serve /healthz and /readyz."""
    pages = Blueprint("health", __name__)

    @pages.get("/healthz")
    def alive() -> ResponseReturnValue:
        return jsonify(status="ok")

    @pages.get("/readyz")
    def ready() -> ResponseReturnValue:
        """Say what is wrong in fixed words: no host, no address, no error text."""
        checks = {"postgres": _state(services.database.ping), "redis": _state(services.lanes.ping)}
        checks["migrations"] = (
            _state(lambda: migrations.pending(services.database)) if checks["postgres"] == "ok" else "unknown"
        )
        is_ready = set(checks.values()) == {"ok"}
        return jsonify(status="ok" if is_ready else "not ready", **checks), 200 if is_ready else 503

    return pages


def _state(check: Callable[[], list[str] | None]) -> str:
    """Run one check: it raises, or lists what is still to do."""
    try:
        return "pending" if check() else "ok"
    except (StoreUnavailable, LanesUnavailable):
        return "unavailable"
