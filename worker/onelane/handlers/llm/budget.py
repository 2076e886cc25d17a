"""How much of a conversation a model is told: its end, in whole exchanges."""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from onelane.model import JsonObject

BYTES_PER_TOKEN: Final = 3
"""Of JSON; English has about four, other languages fewer."""


def within_tokens(messages: Sequence[JsonObject], tokens: int) -> list[JsonObject]:
    """Leave out the oldest exchanges until the rest has about so many tokens. The last exchange always stays.

    An exchange begins with a user's message, and no call is parted from its output.
    """
    kept: list[JsonObject] = []
    left = tokens * BYTES_PER_TOKEN
    for exchange in reversed(list(_exchanges(messages))):
        left -= len(json.dumps(exchange))
        if kept and left < 0:
            break
        kept = [*exchange, *kept]
    return kept


def _exchanges(messages: Sequence[JsonObject]) -> Iterator[list[JsonObject]]:
    exchange: list[JsonObject] = []
    for message in messages:
        if message["role"] == "user" and exchange and exchange[-1]["role"] != "user":
            yield exchange
            exchange = []
        exchange.append(message)
    if exchange:
        yield exchange
