"""Logs the notices (OL001) that SQL functions raise, and counts the sessions of which they tell.

Sessions open and end inside SQL functions: in a begin, in a commit, in the sweep. The functions that do it raise a
notice, which the calling process receives; so no answer needs a column for it.
"""

import json

from onelane.telemetry.log import event
from onelane.telemetry.numbers import SESSIONS_ENDED, SESSIONS_OPENED


def on_notice(name: str, detail: str) -> None:
    """Log one notice: its name, and its fields as JSON."""
    fields = json.loads(detail)
    match name:
        case "session_opened":
            SESSIONS_OPENED.count(fields["because"])
            event("session_opened", **fields)
        case "session_ended":
            SESSIONS_ENDED.count(fields["reason"])
            event("session_ended", **fields)
        case "session_not_swept":
            event("session_not_swept", **fields)
        case "session_not_forgotten":
            event("session_not_forgotten", **fields)
        case "turns_not_settled_together":
            event("turns_not_settled_together", **fields)
