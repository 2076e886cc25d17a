"""The words for what no bot needs, by provider: the values of a metric's label, which are all known beforehand."""

from typing import Final

IGNORED_OF_META: Final = (
    *("account", "calls", "empty", "errors", "flows", "group", "history", "template", "tracking"),
)

IGNORED_OF_SLACK: Final = (
    *("app_rate_limited", "app_requested", "app_uninstalled", "assistant_thread_context_changed"),
    *("block_suggestion", "channel_archive", "channel_created", "channel_deleted", "channel_history_changed"),
    *("channel_join", "channel_leave", "channel_name", "channel_purpose", "channel_rename", "channel_topic"),
    *("channel_unarchive", "deleted_by_bot", "dnd_updated", "edited_by_bot", "ekm_access_denied"),
    *("emoji_changed", "group_archive", "group_deleted", "group_join", "group_rename", "group_unarchive"),
    *("im_close", "im_created", "im_open", "message_metadata_deleted", "message_metadata_posted"),
    *("message_metadata_updated", "message_replied", "no_action", "other_bot", "own_reaction"),
    *("reaction_to_file", "slackbot", "ssl_check", "subteam_created", "subteam_members_changed"),
    *("subteam_updated", "team_join", "team_rename", "text_unchanged", "tokens_revoked", "tombstone"),
    *("user_change", "user_profile_changed"),
)

IGNORED_OF_TELEGRAM: Final = (
    *("bot_message", "business_connection", "callback_game", "channel_membership", "channel_post"),
    *("chat_boost", "chat_join_request", "chat_member", "chosen_inline_result", "edited_channel_post"),
    *("inline_query", "managed_bot", "message_reaction_count", "poll", "poll_answer", "pre_checkout_query"),
    *("purchased_paid_media", "reaction_elsewhere", "removed_chat_boost", "shipping_query"),
    *("stopped_message_generation", "subscription"),
)

IGNORED_OF_TWILIO: Final = (*("inbound_status",),)
