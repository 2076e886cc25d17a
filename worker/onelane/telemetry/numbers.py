"""Every number that is counted. A counter's name gets `_total` in /metrics."""

from typing import Final

from onelane.telemetry.counters import Counter, Histogram

DELIVERIES: Final = Counter(
    "onelane_deliveries",
    "Messages that webhooks brought and Postgres committed, and those it had already.",
    "outcome",
    ("accepted", "duplicate"),
)
REASONS: Final = {
    400: "bad_request",
    401: "bad_signature",
    404: "unknown_channel",
    413: "too_large",
    415: "unsupported",
    429: "backlog_full",
    500: "failed",
    503: "store_unavailable",
}
"""Why a webhook was refused, by the answer's status."""
REFUSALS: Final = Counter("onelane_refusals", "Webhook requests that were refused.", "reason", tuple(REASONS.values()))
TURNS: Final = Counter(
    "onelane_turns",
    "Turns by outcome. already: done before; fenced: a later lease had written; retry: failed, to be tried again; "
    "dead: failed for the last time; paused: the same, the user waits for an operator; dropped: lost its lease.",
    "outcome",
    ("committed", "already", "fenced", "retry", "dead", "paused", "dropped"),
)
TURN_SECONDS: Final = Histogram(
    "onelane_turn_seconds",
    "From a turn's begin to its commit: the handler, mostly.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
END_TO_END_SECONDS: Final = Histogram(
    "onelane_end_to_end_seconds",
    "From a message's acceptance to its commit, by the clocks of Postgres and of the worker.",
    (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 28800),
)
LEASES_LOST: Final = Counter("onelane_leases_lost", "Leases that ran out or were taken while in use.")
BEGINS_FENCED: Final = Counter("onelane_begins_fenced", "Turns refused at their begin: a later lease had written.")
TAKEOVERS: Final = Counter("onelane_takeovers", "Lanes taken over from a worker that never released them.")
SESSION_CACHE: Final = Counter(
    "onelane_session_cache",
    "What the session id known before a turn was worth. unused: a redriven message keeps its own.",
    "result",
    ("hit", "miss", "stale", "malformed", "unused"),
)
SESSIONS_OPENED: Final = Counter(
    "onelane_sessions_opened",
    "Sessions opened, by how the user's session before ended; first: there was none.",
    "because",
    ("first", "timeout", "end_of_day", "max_age", "user_request", "handler", "operator"),
)
SESSIONS_ENDED: Final = Counter(
    "onelane_sessions_ended",
    "Sessions ended.",
    "reason",
    ("timeout", "end_of_day", "max_age", "user_request", "handler", "operator"),
)
RECONCILED: Final = Counter("onelane_reconciled", "Jobs that Redis had lost and the reconciler put back.")
REDRIVEN: Final = Counter("onelane_redriven", "Dead messages that RQ's own tools put back.")


COUNTED: Final[tuple[Counter | Histogram, ...]] = (
    *(DELIVERIES, REFUSALS, TURNS, TURN_SECONDS, END_TO_END_SECONDS, LEASES_LOST, BEGINS_FENCED, TAKEOVERS),
    *(SESSION_CACHE, SESSIONS_OPENED, SESSIONS_ENDED, RECONCILED, REDRIVEN),
)
