"""What Postgres tells about sessions while it answers something else: one opened, one ended, and why.

Sessions open and end inside SQL functions, in passing: in begin_turn, in a commit, in the sweep. So the two places that
do it raise a notice, and whichever process asked hears of it, without a column more in any answer.
"""

import json

from worker.counters import SESSIONS_ENDED, SESSIONS_OPENED
from worker.telemetry import log


def told(name: str, detail: str) -> None:
    """Log and count what a notice says: its name, and its fields as JSON."""
    fields = json.loads(detail)
    match name:
        case "session_opened":
            SESSIONS_OPENED.count(fields["because"])
            log.info("session_opened", **fields)
        case "session_ended":
            SESSIONS_ENDED.count(fields["reason"])
            log.info("session_ended", **fields)
