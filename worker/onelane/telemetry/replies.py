"""The log events about replies on their way to their provider."""

from typing import Final

from onelane.telemetry.event import Event

REPLY: Final = ("user_id", "reply_id", "channel", "attempt", "fence")
"""The fields that identify a request for a reply."""

REPLIES: Final = {
    "reply_sent": Event("info", "A provider has accepted a reply.", REPLY),
    "reply_failed": Event(
        "warning",
        "A reply is not sent, for good: `word` says why, `code` is the provider's own.",
        ("word", "code", *REPLY),
    ),
    "reply_unknown": Event(
        "warning",
        "Nobody knows whether a reply arrived (`code`). It is settled by its provider's word; when it `is_given_up`, it"
        " stays so.",
        ("is_given_up", "code", *REPLY),
    ),
    "reply_postponed": Event(
        "info",
        "A reply was certainly not sent now (`word`, `code`): its user's or its channel's replies (`scope`) wait.",
        ("word", "code", "wait_s", "scope", *REPLY),
    ),
    "reply_not_written": Event(
        "error", "A channel's adapter could not write the request for a reply: it has failed.", ("reply_id", "failure")
    ),
    "look_up_failed": Event("warning", "A provider could not be asked for a reply that may have arrived.", ("error",)),
    "channel_broken": Event(
        "error",
        "A provider refuses all that a channel sends (`word`, `code`): its replies wait until a probe succeeds.",
        ("channel", "word", "code"),
    ),
    "channel_mended": Event("info", "A broken channel's provider takes replies again.", ("channel",)),
    "channel_missing": Event(
        "error", "Replies wait for a channel that CHANNELS does not have, as long as it has not.", ("channel",)
    ),
    "send_postponed": Event(
        "warning", "Postgres was away when a reply was to be marked or settled; its lane waits.", ("user_id", "error")
    ),
    "signs_paused": Event(
        "info",
        "A channel shows neither that messages are seen nor that the bot writes, for some `seconds`: its provider"
        " refuses such signs (`why`: its status, or the kind of the error).",
        ("channel", "why", "seconds"),
    ),
    "signs_failed": Event(
        "warning", "A channel's adapter could not write the request for a sign; the turn goes on without.", ("failure",)
    ),
    "send_impossible": Event(
        "error",
        "Postgres refused what was to be noted of a reply (`sqlstate`); its lane waits.",
        ("user_id", "sqlstate"),
    ),
    "reply_duplicated": Event(
        "error", "A provider turned out to have two messages of one reply.", ("channel", "user_id")
    ),
    "lanes_not_postponed": Event(
        "warning",
        "The lanes of a channel that sends nothing now could not be postponed together (`failure`): they come singly.",
        ("channel", "failure"),
    ),
    "lanes_wait_on": Event(
        "warning",
        "Redis was away when providers settled replies; the lanes that waited for it go on a little later.",
        ("lanes", "error"),
    ),
    "reply_resent": Event(
        "info", "An operator lets a reply be sent that had ended otherwise.", ("user_id", "message_id")
    ),
    "reply_settled": Event(
        "info", "An operator says what became of a reply: `outcome`.", ("user_id", "message_id", "outcome")
    ),
    "reply_dropped": Event("info", "An operator gave a reply up.", ("user_id", "message_id")),
    "channel_opened": Event("info", "An operator lets a channel send again.", ("channel",)),
}
