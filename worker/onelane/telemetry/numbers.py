"""Every number that is counted. A counter's name gets `_total` in /metrics."""

from typing import Final

from onelane.telemetry.counters import Counter, Histogram
from onelane.telemetry.ignored import IGNORED_OF_META, IGNORED_OF_SLACK, IGNORED_OF_TELEGRAM, IGNORED_OF_TWILIO

DELIVERIES: Final = Counter(
    "onelane_deliveries",
    "Messages, events and echoes of webhooks. accepted: committed in Postgres; duplicate: of a committed one; full: "
    "its user has too many waiting; skipped: its user's row was held; refused: Postgres cannot store it. Full and "
    "skipped ones come again.",
    "outcome",
    ("accepted", "duplicate", "full", "skipped", "refused"),
)
ACCEPTED: Final = Counter(
    "onelane_accepted",
    "What was accepted, by kind. event: no message, such as a reaction; echo: a colleague wrote past us; identity: a "
    "user is called differently from now on.",
    "kind",
    ("message", "event", "echo", "identity"),
)
DIFFERING: Final = Counter(
    "onelane_differing_redeliveries", "Duplicates whose content is not what was accepted; the first stays."
)
IDENTITY_CONFLICTS: Final = Counter(
    "onelane_identity_conflicts", "Deliveries whose identifiers are those of several users; nothing was merged."
)
QUARANTINED: Final = Counter(
    "onelane_quarantined",
    "Parts of verified webhooks that went into quarantine. not_understood: by the channel's adapter; not_storable: "
    "Postgres refuses it.",
    "reason",
    ("not_understood", "not_storable"),
)
IGNORED: Final = Counter(
    "onelane_ignored",
    "Parts of webhooks that no bot needs. nothing: the webhook held nothing; answered: it only asked for an answer.",
    "what",
    ("nothing", "answered", *IGNORED_OF_META, *IGNORED_OF_SLACK, *IGNORED_OF_TELEGRAM, *IGNORED_OF_TWILIO),
)
STATUSES: Final = Counter(
    "onelane_statuses",
    "What providers said became of replies, repetitions counted.",
    "state",
    ("sent", "delivered", "read", "failed"),
)
STATUSES_KEPT: Final = Counter(
    "onelane_statuses_kept", "Statuses that fitted no reply when they came; they are kept for eight days."
)
DUPLICATED: Final = Counter(
    "onelane_replies_duplicated", "Replies of which the provider turned out to have two messages. It should stay at 0."
)
SAID: Final = Counter(
    "onelane_said",
    "What was said from outside a turn. duplicate: said before under the same key; opted_out: the user wants no more "
    "messages; unknown: nobody has the name.",
    "outcome",
    ("said", "duplicate", "opted_out", "unknown"),
)
REASONS: Final = {
    400: "bad_request",
    401: "bad_signature",
    403: "forbidden",
    404: "unknown_channel",
    405: "method",
    413: "too_large",
    415: "unsupported",
    429: "backlog_full",
    500: "failed",
    503: "store_unavailable",
}
"""Why a webhook was refused, by the answer's status."""
BUSY: Final = "busy"
"""No thread of the web took it in time."""
FULL: Final = "full"
"""As many messages wait, of all users, as may."""
REFUSALS: Final = Counter(
    "onelane_refusals", "Webhook requests that were refused.", "reason", (*REASONS.values(), BUSY, FULL)
)
TURNS: Final = Counter(
    "onelane_turns",
    "Turns by outcome. already: done before; fenced: a later lease had written; stale: what it read has changed, "
    "so it runs again; superseded: a newer message is answered with it; retry: failed, tried again later; later: what "
    "the handler needs is away, so it waits and loses no attempt; dead: failed for the last time; paused: the same, "
    "and the user waits for an operator; dropped: lost its lease.",
    "outcome",
    ("committed", "already", "fenced", "stale", "superseded", "retry", "later", "dead", "paused", "dropped"),
)
TURN_SECONDS: Final = Histogram(
    "onelane_turn_seconds",
    "From the begin of a turn to its commit.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
END_TO_END_SECONDS: Final = Histogram(
    "onelane_end_to_end_seconds",
    "From the accept of a message (Postgres' clock) to its commit (the worker's clock).",
    (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 28800),
)
REQUESTS: Final = Counter(
    "onelane_send_requests",
    "Requests that send a reply, by what the provider's answer means. not_now: certainly not sent, for a limit or an "
    "error; never: refused for good; broken: the whole channel is; unknown: nobody knows whether it arrived.",
    "class",
    ("accepted", "not_now", "never", "broken", "unknown"),
)
REQUEST_SECONDS: Final = Histogram(
    "onelane_send_request_seconds",
    "From the begin of a request that sends a reply to its answer.",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25),
)
REPLIES: Final = Counter(
    "onelane_replies",
    "Replies that left the outbox, by their state then. given_up: nobody knows whether it arrived.",
    "state",
    ("sent", "delivered", "read", "failed", "withheld", "dropped", "given_up"),
)
LOOK_UPS: Final = Counter(
    "onelane_look_ups",
    "Times that a provider was asked for a reply that may have arrived. accepted: it has it; not_now: it has it not; "
    "never: it has it, and could not deliver it.",
    "class",
    ("accepted", "not_now", "never", "unknown"),
)
VISIBLE_SECONDS: Final = Histogram(
    "onelane_visible_seconds",
    "From the accept of a message (Postgres' clock) until its provider has accepted a reply (the worker's clock).",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 28800),
)
FIRST_SIGN_SECONDS: Final = Histogram(
    "onelane_first_sign_seconds",
    "From the accept of a message (Postgres' clock) until its provider has taken the first sign, seen or typing (the "
    "worker's clock).",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 28800),
)
SIGNS: Final = Counter(
    "onelane_signs",
    "Signs that somebody works on a message: seen, typing. left_out: too many were under way, or the provider wants "
    "none now.",
    "outcome",
    ("shown", "failed", "left_out"),
)
LEASES_LOST: Final = Counter("onelane_leases_lost", "Leases that ran out or were taken while in use.")
BEGINS_FENCED: Final = Counter(
    "onelane_begins_fenced", "Turns refused at their begin, because a later lease had written."
)
TAKEOVERS: Final = Counter("onelane_takeovers", "Lanes taken over from a worker that died or was cut off.")
SESSION_CACHE: Final = Counter(
    "onelane_session_cache",
    "Whether the cached session id was right. unused: a redriven message keeps its own session.",
    "result",
    ("hit", "miss", "wrong", "malformed", "unused"),
)
SESSIONS_OPENED: Final = Counter(
    "onelane_sessions_opened",
    "Sessions opened, by how the user's last session ended; first: there was none.",
    "because",
    ("first", "timeout", "end_of_day", "max_age", "user_request", "handler", "operator"),
)
SESSIONS_ENDED: Final = Counter(
    "onelane_sessions_ended",
    "Sessions ended.",
    "reason",
    ("timeout", "end_of_day", "max_age", "user_request", "handler", "operator"),
)
RECONCILED: Final = Counter(
    "onelane_reconciled", "Lanes that Redis had lost, or had no room for, and the reconciler added."
)
REDRIVEN: Final = Counter("onelane_redriven", "Dead messages, and replies, that RQ's own tools requeued.")
FORGOTTEN: Final = Counter(
    "onelane_forgotten",
    "What was forgotten. user: a person, by an operator; session: an ended one, after RETENTION_DAYS.",
    "what",
    ("user", "session"),
)


COUNTED: Final[tuple[Counter | Histogram, ...]] = (
    *(
        DELIVERIES,
        ACCEPTED,
        DIFFERING,
        IDENTITY_CONFLICTS,
        QUARANTINED,
        IGNORED,
        STATUSES,
        STATUSES_KEPT,
        DUPLICATED,
        SAID,
        REFUSALS,
        TURNS,
        TURN_SECONDS,
        END_TO_END_SECONDS,
        REQUESTS,
        REQUEST_SECONDS,
        REPLIES,
        LOOK_UPS,
        VISIBLE_SECONDS,
        FIRST_SIGN_SECONDS,
        SIGNS,
        LEASES_LOST,
        BEGINS_FENCED,
        TAKEOVERS,
    ),
    *(SESSION_CACHE, SESSIONS_OPENED, SESSIONS_ENDED, RECONCILED, REDRIVEN, FORGOTTEN),
)
