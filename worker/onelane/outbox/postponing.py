"""Lets many lanes wait at once: those of a channel that can send nothing now.

Each by itself would be leased, begun and parked in vain. There may be thousands of them, after a deploy for instance,
and the replies of other channels would wait behind them.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Final, TypeVar
from uuid import UUID

import psycopg

from onelane.errors import OnelaneError, describe
from onelane.lanes.lanes import Lanes
from onelane.outbox.records import SendRecords
from onelane.telemetry.log import event
from onelane.turns.answers import answered

AGAIN_S: Final = 0.25
"""So long after that, lanes of the channel that become due come one by one."""
LOOKED_AT: Final = 500
"""Lanes in one round."""
ROUNDS_MAX: Final = 100

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
PauseS = Callable[[UUID, int], float]
"""For how long a user's lane is to wait, where so many workers send."""


class Postponing:
    """Postpones lanes that are due. For one thread, on its event loop."""

    def __init__(self, lanes: Lanes, records: SendRecords) -> None:
        self._lanes = lanes
        self._records = records
        self._not_before: dict[str, float] = {}
        """By channel, on the monotonic clock."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postponing")
        """Lists of hundreds would hold up the loop."""

    def soon(self, channel: str, pause_s: PauseS) -> None:
        """Let the lanes of `channel` that are due wait, each for `pause_s`. Where that fails, they come one by one."""
        if time.monotonic() < self._not_before.get(channel, 0.0):
            return
        self._not_before[channel] = inf
        task = asyncio.get_running_loop().create_task(self._postpone(channel, pause_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _postpone(self, channel: str, pause_s: PauseS) -> None:
        try:
            for _ in range(ROUNDS_MAX):
                due = await self._asked(self._lanes.longest_due, LOOKED_AT)
                if not due.users:
                    return
                users = await self._records.on_channel(channel, due.users)
                pauses_s = {user: pause_s(user, max(1, due.workers)) for user in due.users if user in users}
                await self._asked(self._lanes.postpone, pauses_s)
                if not users or len(due.users) < LOOKED_AT:
                    return
        except (OnelaneError, psycopg.Error) as error:
            event("lanes_not_postponed", channel=channel, failure=describe(error))
        finally:
            self._not_before[channel] = time.monotonic() + AGAIN_S

    def _asked(self, ask: Callable[[Asked], Answer], what: Asked) -> asyncio.Future[Answer]:
        return answered(self._thread.submit(ask, what))
