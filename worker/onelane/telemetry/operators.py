"""The log events about operators on the pages under /ops, and about who is forgotten."""

from typing import Final

from onelane.telemetry.event import Event

OPERATORS: Final = {
    "operator_logged_in": Event("info", "An operator logged in.", ("by",)),
    "operator_refused": Event("warning", "A login was refused, for `reason`.", ("reason",)),
    "operator_requeued": Event("info", "A dead message was requeued on the dashboard.", ("message_id",)),
    "operator_requeued_all": Event(
        "info", "All dead messages of a lane were requeued on the dashboard.", ("queue", "count")
    ),
    "user_forgotten": Event("info", "A person was forgotten, with so many messages.", ("by", "messages")),
    "sessions_forgotten": Event(
        "info", "Sessions that had ended RETENTION_DAYS ago were forgotten, with their messages.", ("channel", "count")
    ),
}
