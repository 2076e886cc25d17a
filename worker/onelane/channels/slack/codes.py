"""What Slack's errors mean for us. One that ends with * stands for all that begin so."""

from collections.abc import Mapping
from typing import Final

from onelane.channels.verdicts import Certainty, Meaning, Word, broken, channel_limit, never, table, unclear

CODES: Final[Mapping[str, Meaning]] = table(
    (channel_limit(Certainty.VENDOR), ["ratelimited", "rate_limited", "message_limit_exceeded"]),
    # Slack says of these that a part may have happened.
    (unclear(Certainty.MEMORY), ["fatal_error", "internal_error", "request_timeout", "service_unavailable"]),
    (unclear(Certainty.VENDOR), ["duplicate_message_not_found", "duplicate_channel_not_found"]),
    (
        never(Word.UNREACHABLE, Certainty.VENDOR),
        ["channel_not_found", "is_archived", "not_in_channel", "restricted_action*", "messages_tab_disabled"],
    ),
    (
        never(Word.BAD_CONTENT, Certainty.VENDOR),
        ["msg_too_long", "no_text", "invalid_blocks*", "msg_blocks_too_long", "metadata_too_large"],
    ),
    (
        broken(Word.DENIED, Certainty.VENDOR),
        ["invalid_auth", "not_authed", "token_*", "missing_scope", "ekm_access_denied"],
    ),
    (broken(Word.ACCOUNT, Certainty.VENDOR), ["account_inactive"]),
)


def meaning_of(error: str) -> Meaning | None:
    """Look an error up, by its whole name first."""
    prefixes = (name for name in CODES if name.endswith("*") and error.startswith(name[:-1]))
    return CODES.get(error) or next((CODES[name] for name in prefixes), None)
