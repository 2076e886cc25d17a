"""WhatsApp through Meta's Cloud API: batches of JSON, signed with the app's secret.

`envelope` takes a batch apart; `people` says who wrote, `contents` and `happenings` what; `identities`, `preferences`
and `statuses` read the rest. `sending` writes replies and reads their answers. `writing` makes batches, to try a bot
without an account.
"""

from onelane.channels.meta.adapter import Meta
from onelane.channels.meta.settings import MetaSettings

__all__ = ["Meta", "MetaSettings"]
