"""RQ's commands to one worker (`shutdown`, for one), as they come over its subscription.

RQ listens in a thread of its own, which nobody watches, and which a link that went silent keeps for good. Here a task
of the worker reads what has come, a few times a minute asks for a sign of life, and subscribes again when none comes.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import redis
from redis.client import PubSub

from onelane.errors import reason_of
from onelane.lanes.refusals import translated
from onelane.telemetry.log import event

READ_S: Final = 0.05
ASK_EVERY_S: Final = 10.0
ANSWER_MAX_S: Final = 5.0
READ_MAX: Final = 100
"""Messages in one reading."""
SILENT: Final = "the subscription went silent"


class Commands:
    """One worker's subscription. Used by one thread."""

    def __init__(self, client: redis.Redis, channel: str, obey: Callable[[Any], object]) -> None:
        """`obey` gets each message of `channel`."""
        self._client = client
        self._channel = channel
        self._obey = obey
        self._subscription: PubSub | None = None
        self._asked_at = 0.0
        self._is_answered = True
        self._lost: str | None = None
        """Why there is no subscription: an outage is logged when it begins, and when its reason is another."""

    def read(self) -> None:
        """Obey what has come since the last call."""
        try:
            subscription = self._subscription or self._subscribe()
            for _ in range(READ_MAX):
                if (message := subscription.get_message(timeout=READ_S)) is None:
                    break
                self._is_answered, self._lost = True, None
                if message["type"] == "message":
                    self._obey(message)
            self._ask_for_life(subscription)
        except Exception as error:  # noqa: BLE001 - whatever Redis answers, and whatever somebody sends
            self._note_lost(reason_of(translated(error)))

    def close(self) -> None:
        """Listen no more."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def _subscribe(self) -> PubSub:
        self._subscription = self._client.pubsub()  # type: ignore[no-untyped-call]
        self._subscription.subscribe(self._channel)
        self._asked_at, self._is_answered = time.monotonic(), False
        return self._subscription

    def _ask_for_life(self, subscription: PubSub) -> None:
        waited_s = time.monotonic() - self._asked_at
        if not self._is_answered and waited_s > ANSWER_MAX_S:
            self._note_lost(SILENT)
        elif self._is_answered and waited_s > ASK_EVERY_S:
            self._asked_at, self._is_answered = time.monotonic(), False
            subscription.ping()

    def _note_lost(self, error: str) -> None:
        self.close()
        if error != self._lost:
            event("commands_lost", error=error)
        self._lost = error
