"""The log events about servers that are away, full or unfit, and about the tasks that meet them."""

from typing import Final

from onelane.telemetry.event import Event

AWAY: Final = {
    "postgres_away": Event(
        "error",
        "Postgres cannot be worked with from here: this process takes no lanes until a probe succeeds.",
        ("error",),
    ),
    "postgres_back": Event("info", "Postgres takes writes again, after `away_s` seconds.", ("away_s",)),
    "store_unavailable": Event(
        "warning",
        "Postgres was away during a turn; the lane is parked, no attempt is counted.",
        ("user_id", "error"),
    ),
    "turn_impossible": Event(
        "error",
        "Postgres refused a turn (`sqlstate`); the lane is parked, no attempt is counted.",
        ("user_id", "sqlstate"),
    ),
    "lanes_unavailable": Event(
        "warning", "Redis was away in a turn; the lane is due again when its lease ends.", ("user_id", "error")
    ),
    "lease_failed": Event("warning", "Redis was away when lanes of a kind were to be leased.", ("kind", "error")),
    "tracing_impossible": Event(
        "warning",
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, and nothing is traced (`error`): is onelane[otel] installed?",
        ("error",),
    ),
    "numbers_postponed": Event(
        "warning", "Redis was away when numbers were to be added; they are kept and sent later.", ("error",)
    ),
    "duty_postponed": Event("warning", "Postgres or Redis was away when a duty was to be done.", ("duty", "error")),
    "duty_failed": Event(
        "error", "An unexpected error ended a duty, or a page of it; the next ones are done.", ("duty", "failure")
    ),
    "lane_failed": Event(
        "error", "A duty could not do its work for one user; the others are done.", ("user_id", "failure")
    ),
    "reconciled": Event("info", "Lanes that Redis had lost, or had no room for, were added.", ("kind", "lanes")),
    "task_postponed": Event("warning", "Redis was away during a periodic task.", ("task", "error")),
    "task_stuck": Event(
        "error",
        "A periodic task's thread hangs or has died (`failure`: where); it goes on in a new one.",
        ("task", "failure"),
    ),
    "task_failed": Event("error", "An unexpected error ended one round of a periodic task.", ("task", "failure")),
    "inbox_full": Event(
        "error",
        "As many messages wait, of all users, as BACKLOG_TOTAL_MAX allows (`most`): this web process refuses "
        "webhooks of messages with 503.",
        ("most",),
    ),
    "inbox_has_room": Event("info", "Fewer messages wait than `most` again: webhooks are accepted.", ("most",)),
    "redis_full": Event(
        "warning",
        "A full Redis took no jobs of `messages` messages; their lanes are due without, or are added later.",
        ("messages",),
    ),
    "redis_evicts": Event(
        "error",
        "Redis' maxmemory-policy (`policy`) evicts keys: this worker takes no lanes until it is `noeviction`, or"
        " REDIS_MAY_EVICT is true.",
        ("policy",),
    ),
    "redis_keeps": Event("info", "Redis' maxmemory-policy is `noeviction` again; this worker takes lanes."),
}
