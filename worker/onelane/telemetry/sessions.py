"""The log events about sessions."""

from typing import Final

from onelane.telemetry.event import Event

SESSIONS: Final = {
    "session_opened": Event(
        "info",
        "A session opened; `because` is how the session before ended, or `first`.",
        ("user_id", "session_id", "because", "started_at", "previous_session_id"),
    ),
    "session_ended": Event("info", "A session ended, for `reason`.", ("user_id", "session_id", "reason", "ended_at")),
    "session_not_swept": Event(
        "error",
        "A session whose time may be over could not be ended (`sqlstate`); the sweep tries again in 10 minutes.",
        ("user_id", "session_id", "sqlstate"),
    ),
    "session_not_forgotten": Event(
        "error",
        "A session could not be forgotten after RETENTION_DAYS (`sqlstate`); others are, and the next lap tries again.",
        ("user_id", "session_id", "sqlstate"),
    ),
    "cache_not_cleared": Event(
        "warning", "Redis was away when a session ended; Postgres will find the cached id wrong.", ("user_id",)
    ),
}
