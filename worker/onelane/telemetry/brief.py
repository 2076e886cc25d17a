"""What the author of a bot reads under `onelane run`: a line for each turn, and what is wrong."""

import logging
from typing import Any, Final

import structlog

from onelane.telemetry.events import EVENTS

KEPT: Final = frozenset({"turn_ended", "worker_started"})
"""Of what is only information."""
SHOWN: Final = 6
"""Letters of an id, its last ones: the first are the time."""


class Brief:
    """A renderer that leaves the rest out: `onelane run --verbose` shows it."""

    def __init__(self, otherwise: Any) -> None:
        """Render with `otherwise` what is no turn."""
        self._otherwise = otherwise

    def __call__(self, logger: Any, method: str, fields: structlog.typing.EventDict) -> str:
        """Render, or drop the event."""
        name = str(fields.get("event"))
        if name == "turn_ended":
            return _turn(fields)
        if name in EVENTS and EVENTS[name].level == "info" and name not in KEPT:
            raise structlog.DropEvent
        return str(self._otherwise(logger, method, fields))


def passes(record: logging.LogRecord) -> bool:
    """Leave out how gunicorn starts and ends."""
    return record.levelno > logging.INFO or not record.name.startswith("gunicorn")


def _turn(fields: structlog.typing.EventDict) -> str:
    """Format who, where, how long and how it ended."""
    at = str(fields.get("timestamp", ""))[11:19]
    user, session = (str(fields.get(name) or "-")[-SHOWN:] for name in ("user_id", "session_id"))
    number, took, outcome = fields.get("seq", "-"), fields.get("turn_ms", 0), fields.get("outcome", "")
    return f"{at}  user {user}  session {session}  message {number}  {took:.0f} ms  {outcome}"
