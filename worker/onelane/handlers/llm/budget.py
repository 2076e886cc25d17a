"""How much of a conversation a model is told: its end, in whole exchanges."""

import json
from collections.abc import Sequence
from typing import Final

from onelane.model import JsonObject

BYTES_PER_TOKEN: Final = 3
"""Of JSON; English has about four, other languages fewer."""


def within_tokens(messages: Sequence[JsonObject], tokens: int) -> list[JsonObject]:
    """Leave out the oldest exchanges until the rest has about so many tokens. The last exchange always stays.

    An exchange begins with a user's message, and no call is parted from its output.
    """
    roles = [message["role"] for message in messages]
    begins = [at for at, role in enumerate(roles) if at == 0 or (role == "user" and roles[at - 1] != "user")]
    for begin in begins:
        if len(json.dumps(messages[begin:])) <= tokens * BYTES_PER_TOKEN:
            return list(messages[begin:])
    return list(messages[begins[-1] :]) if begins else []
