"""A worker that dies behind a handler: its lease is a dead worker's, runs out, and is taken over."""

import time
from typing import Any, Final

import redis

from onelane import keys

GONE: Final = "a-worker-that-died"
RUNS_OUT_MS: Final = 1_500
"""By then the worker that lost the lease has noticed, and has let go."""
NOTICED_WITHIN_S: Final = 30.0
POLL_S: Final = 0.01


class WorkerDiedError(Exception):
    """What a handler returned is lost."""


class Crash:
    """Strikes once it is asked for."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.after: str | None = None
        """`handler`: nothing is committed. `commit`: all is, and the lane is not released."""

    def strike(self, turn: Any) -> None:
        """Take the lease away from the worker whose handler has returned; without its commit, wait until it knows."""
        after, self.after = self.after, None
        if after is None:
            return
        seconds, microseconds = self._client.time()
        ends = seconds * 1000 + microseconds // 1000 + RUNS_OUT_MS
        lock: dict[Any, Any] = {"token": f"{GONE}:0", "worker": GONE, "until": ends, "life": RUNS_OUT_MS}
        self._client.hset(keys.lock(turn.user.id), mapping=lock)
        self._client.zadd(keys.lanes(), {str(turn.user.id): ends})
        if after == "handler":
            self._await_loss(turn)
            raise WorkerDiedError

    def _await_loss(self, turn: Any) -> None:
        deadline = time.monotonic() + NOTICED_WITHIN_S
        while not turn.cancelled and time.monotonic() < deadline:
            time.sleep(POLL_S)
