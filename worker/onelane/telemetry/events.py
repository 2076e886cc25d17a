"""Every log event: its name, its level, its fields, and what it means.

The code names an event and gives its fields; everything else about it is listed here. A test compares both.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from onelane.telemetry.away import AWAY
from onelane.telemetry.event import Event
from onelane.telemetry.operators import OPERATORS
from onelane.telemetry.quarantine import QUARANTINE
from onelane.telemetry.replies import REPLIES
from onelane.telemetry.sessions import SESSIONS

TURN = ("user_id", "message_id", "session_id", "seq", "fence")
"""The fields that identify a turn."""

EVENTS: Final[Mapping[str, Event]] = MappingProxyType(
    {
        # the way of a message
        "delivery_accepted": Event(
            "info", "A webhook's message is committed in Postgres.", ("channel", "message_id", "user_id", "seq")
        ),
        "delivery_duplicate": Event(
            "info",
            "A webhook delivered a message that Postgres had already.",
            ("channel", "message_id", "user_id", "seq"),
        ),
        "delivery_refused": Event(
            "warning", "A webhook of a configured channel was refused, for `reason`.", ("channel", "reason")
        ),
        "signature_refused": Event(
            "warning",
            "A webhook of a configured channel is not signed as it must be: `reason`. `address` is what was verified.",
            ("channel", "reason", "address"),
        ),
        "channel_unknown": Event(
            "warning", "A webhook was sent to a channel that CHANNELS does not have.", ("channel",)
        ),
        "lines_left_out": Event(
            "warning",
            "What strangers send was refused so often that so many `lines` of the event `kind` were not logged.",
            ("kind", "lines"),
        ),
        "delivery_not_accepted": Event(
            "warning",
            "A message of a webhook was not accepted: its provider delivers it again (full, skipped), or it is kept in "
            "quarantine (refused).",
            ("channel", "outcome", "user_id", "sqlstate"),
        ),
        "identity_conflict": Event(
            "warning", "A delivery's identifiers are those of several users; `user_id` has got it.", ("user_id",)
        ),
        "redelivery_differs": Event(
            "warning",
            "A message came again with other content; what was accepted first stays.",
            ("channel", "user_id", "message_id"),
        ),
        "enqueue_postponed": Event(
            "warning",
            "Redis was away, or refused (`error`), when messages were accepted: this process enqueues them later, or "
            "the reconciler adds their lanes.",
            ("messages", "error"),
        ),
        "turn_ended": Event(
            "info", "A turn was settled as `outcome`, in the session `session_id`.", ("outcome", "turn_ms", *TURN)
        ),
        "turn_failed": Event(
            "warning",
            "A handler raised, took too long or died: `failure` is its place and kind, without the message's text.",
            ("outcome", "attempts", "failure", *TURN),
        ),
        "turn_postponed": Event(
            "warning",
            "What a handler needs is away, or it asked for later: no attempt is counted, the lane is parked.",
            ("laters", "failure", *TURN),
        ),
        "reply_unsendable": Event(
            "warning",
            "A channel has no form for what a reply says: it failed, as `word`. `reason` says what a bot can do.",
            ("channel", "word", "reason"),
        ),
        "turn_dropped": Event(
            "info", "A turn ended without a write, because its lease was lost or its worker stops.", ("turn_ms", *TURN)
        ),
        "suspect_postponed": Event(
            "error",
            "No process could be started for a suspect message (`failure`); the lane is parked, no attempt is counted.",
            ("user_id", "failure"),
        ),
        "begin_fenced": Event(
            "warning",
            "Postgres has seen a later lease of the lane; the lane will be leased again, with a larger fence.",
            ("user_id", "fence", "newer"),
        ),
        "foreign_jobs": Event(
            "warning", "Jobs on a lane are not messages of its user; they are left there.", ("user_id", "jobs")
        ),
        "turns_not_settled_together": Event(
            "warning",
            "Postgres refused to settle a list's plain turns together (`sqlstate`); each was settled by itself.",
            ("sqlstate",),
        ),
        "message_redriven": Event(
            "info", "A dead message waits again, with its number and its session.", ("user_id", "message_id")
        ),
        "message_dropped": Event("info", "An operator dropped a dead message.", ("user_id", "message_id")),
        # operators
        "user_paused": Event("info", "An operator paused a user: messages wait.", ("user_id",)),
        "user_resumed": Event("info", "An operator resumed a paused user.", ("user_id",)),
        "session_end_requested": Event(
            "info",
            "An operator ended a session: `outcome` is the reason, or `noted` while messages wait.",
            ("user_id", "outcome"),
        ),
        "session_escalated": Event("info", "An operator handed a session to a human.", ("user_id", "session_id")),
        "users_merged": Event(
            "info", "An operator made one user of two: `loser_id` is `user_id` now.", ("user_id", "loser_id", "moved")
        ),
        "owner_confirmed": Event(
            "info", "An operator confirmed that a number is the same person's as before.", ("user_id",)
        ),
        "user_opted_in": Event("info", "An operator lifted that a user wants no more messages.", ("user_id",)),
        "session_handed_back": Event(
            "info", "An operator gave an escalated session back to the bot.", ("user_id", "session_id")
        ),
        "time_fitted": Event("info", "An operator brought a user's time back to the clock.", ("user_id", "ahead_s")),
        "lanes_not_updated": Event(
            "warning",
            "Redis was away when an operator acted; Postgres has it, and the reconciler will update Redis.",
            ("error",),
        ),
        # leases
        "lane_taken_over": Event(
            "warning", "A lane's holder died or hangs: its lease ended without being released.", ("user_id", "fence")
        ),
        "lease_lost": Event(
            "warning",
            "A lease in use ended or was taken; its turn is cancelled, and the fence protects Postgres.",
            ("user_id", "fence"),
        ),
        "clock_stepped": Event("warning", "Redis' clock stepped by `seconds`; the lanes' clock did not.", ("seconds",)),
        "lanes_called_back": Event("warning", "Lanes waited for longer than anything we set.", ("lanes",)),
        "renewer_died": Event(
            "error", "The helper process that renews leases died; a new one is started.", ("exit_code",)
        ),
        "renewer_not_started": Event(
            "error",
            "No helper process that renews leases can be started: the worker takes no lanes until one can be, and ends "
            "if that lasts for `STALL_LIMIT_S`.",
            ("leases", "error"),
        ),
        "renewer_silent": Event(
            "error",
            "The helper process that renews leases answered nothing for half a lease's life; a new one is started.",
            ("leases",),
        ),
        "renewal_failed": Event(
            "warning", "Leases could not be renewed; they last until their time ends.", ("leases", "error")
        ),
        "lane_left_to_its_lease": Event(
            "warning", "A lane could not be released; it is due again when its lease ends.", ("user_id", "error")
        ),
        # processes
        "worker_waits": Event(
            "warning", "A worker process starts while Postgres or Redis is away, and waits for it.", ("error",)
        ),
        "redis_adopted": Event("info", "An operator made the lanes in Redis this database's."),
        "worker_refused": Event("error", "A worker ends: Redis has another deployment's lanes.", ("error",)),
        "worker_started": Event("info", "A worker process starts to lease lanes.", ("worker", "kinds", "slots")),
        "worker_stopping": Event("info", "A worker process stops; it finishes the turns that run.", ("lanes",)),
        "worker_stopped": Event("info", "A worker process has ended.", ("worker",)),
        "worker_died": Event("error", "A worker process died; a new one is started.", ("exit_code", "restart_in_s")),
        "slot_stuck": Event(
            "warning",
            "A slot was at `stage` for longer than it may take; its lease is ended, its late result dropped.",
            ("stage", "user_id"),
        ),
        "loop_blocked": Event(
            "error",
            "A call of an async handler, at `stack`, blocked the event loop; its process is replaced.",
            ("blocked_s", "stack", "user_id", "message_id"),
        ),
        "worker_stuck": Event(
            "error", "In every place of one kind in a worker something is stuck; a new one is started.", ("kind",)
        ),
        "isolation_broken": Event(
            "error",
            "A worker cannot start the process of its own that a suspect message of this `handler` gets (`failure`): "
            "such messages wait. The doctor's check `isolation` lists these workers.",
            ("handler", "failure"),
        ),
        "worker_hopeless": Event(
            "error",
            "A task of the worker (`task`) hangs, and no new thread helps; the worker ends, and a new one is started.",
            ("task",),
        ),
        "worker_killed": Event(
            "error", "A worker that was asked to end did not in the time it had; it was killed.", ("after_s",)
        ),
        "worker_not_unregistered": Event(
            "warning", "Redis did not take a worker's end; its registration expires.", ("worker",)
        ),
        "worker_not_registered": Event(
            "warning",
            "Redis has other things under RQ's keys: a worker could not write its heartbeat; it continues.",
            ("worker", "error"),
        ),
        "commands_lost": Event(
            "warning", "A worker lost its subscription to RQ's commands, and subscribed again.", ("error",)
        ),
        "log_left_out": Event(
            "warning",
            "Nobody read the log for a while; so many lines (`lines`) of this process are not in it.",
            ("lines",),
        ),
        "process_crashed": Event("critical", "An unexpected error ended a thread or the process.", ("failure",)),
        "slot_failed": Event(
            "error",
            "An unexpected error ended a lane's turns; the lane is due again later.",
            ("user_id", "failure"),
        ),
        "request_failed": Event("error", "An unexpected error ended a request with 500.", ("error", "frames")),
        "web_stuck": Event(
            "error",
            "A request has held a thread of a web process for too long; the process ends, and a new one is started.",
            ("stacks",),
        ),
        "web_hopeless": Event(
            "error",
            "A periodic task (`task`) of a web process hangs in every thread that it gets; the process ends, and a new "
            "one is started.",
            ("task",),
        ),
        "web_busy": Event(
            "warning",
            "No thread of a web process took `requests` requests in time; they were answered with 503.",
            ("requests",),
        ),
        **AWAY,
        **OPERATORS,
        **QUARANTINE,
        **REPLIES,
        **SESSIONS,
    }
)
