"""Why a channel's newest webhook was refused that was not signed as it must be: for whoever sets the channel up."""

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import redis
from pydantic import ValidationError

from onelane import keys
from onelane.model import Value

KEPT_S: Final = 86_400
EVERY_S: Final = 1.0
"""Whoever makes us note something needs no secret for it."""


class Refusal(Value):
    """One refusal."""

    at: datetime
    reason: str
    address: str
    """What was verified."""


class Unsigned:
    """Keeps the newest refusal of each channel for a day, in Redis. Without Redis it is in the log alone."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._noted_at: dict[str, float] = {}

    def note(self, channel: str, reason: str, address: str) -> None:
        """Keep a refusal; in each process one a second."""
        now = time.monotonic()
        if now - self._noted_at.get(channel, -EVERY_S) < EVERY_S:
            return
        self._noted_at[channel] = now
        refusal = Refusal(at=datetime.now(UTC), reason=reason, address=address)
        with suppress(redis.RedisError, OSError):
            self._client.set(keys.unsigned(channel), refusal.model_dump_json(), ex=KEPT_S)

    def newest(self, channel: str) -> Refusal | None:
        """Return a channel's newest refusal, if Redis has one."""
        with suppress(redis.RedisError, OSError, ValidationError):
            if kept := self._client.get(keys.unsigned(channel)):
                return Refusal.model_validate_json(kept)
        return None
