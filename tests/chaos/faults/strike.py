"""One fault as it happens: whom it strikes, with whose dice, until when."""

import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from onelane.dev.embedded.child import command_line, descendants
from tests.chaos.service.dynos import is_living, send
from tests.chaos.service.stack import WORKER_NAMES, Stack
from tests.proxy import Proxy

ANSWERS_S = 2.0
"""What a server that nothing else has struck may take to obey."""
Steps = Generator[None, None, None]
"""A fault: it strikes, yields while it lasts, and heals however it ends, also when it is closed early.

Nothing in it waits: whoever steps the generators goes on with all faults at once.
"""


@dataclass
class Strike:
    """One fault as it happens."""

    stack: Stack
    target: str
    lasts_s: float
    dice: Random
    began_at: float = field(default_factory=time.monotonic)
    struck: list[int] = field(default_factory=list)
    """The processes that were killed, frozen, or given an order."""
    survived: list[int] = field(default_factory=list)
    """Those of them that could not work, and that nobody has replaced in time."""
    user_id: str | None = None
    """The user whose row is locked."""
    is_missed: bool = False
    """Whether it has struck nothing."""
    detail: str = ""
    """What of the target was struck, where dice chose that."""
    flushed_at: float | None = None
    """When Redis was made to forget everything, of a fault that does more than that."""
    is_whole: bool = True
    """Whether it has struck all that it was meant to."""

    @property
    def place(self) -> str:
        """The dyno, server or proxy that is struck."""
        return place_of(self.target)

    @property
    def proxy(self) -> Proxy:
        """The proxy that is struck: a server's, or a worker's own before that."""
        own = self.stack.own_proxies.get(self.target)
        return own or (self.stack.redis_proxy if self.place == "redis-proxy" else self.stack.postgres_proxy)

    @contextmanager
    def redis(self, answers_s: float = ANSWERS_S) -> Iterator[Redis]:
        """Connect straight to Redis, past its proxy; what it does not answer is not asked again."""
        url, once = self.stack.redis.url, Retry(NoBackoff(), 0)
        with Redis.from_url(url, socket_timeout=answers_s, retry=once) as client:
            yield client

    def find(self) -> bool:
        """Choose a living process to strike; answer whether there is one."""
        candidates = self._candidates()
        self.struck = [self.dice.choice(candidates)] if candidates else []
        return bool(candidates)

    def living(self) -> list[int]:
        """Return those of the struck processes that still live."""
        return [pid for pid in self.struck if is_living(pid)]

    def workers(self) -> list[int]:
        """Find the processes that work, of all workers."""
        return [pid for name in WORKER_NAMES for pid in self.stack.dynos[name].pids("process")]

    def is_candidate(self, pid: int) -> bool:
        """Whether a process still is what it was struck as: not one whose parent has died."""
        return pid in self._candidates()

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to what was chosen."""
        for pid in self.struck:
            send(pid, signum)

    def lasting(self) -> Steps:
        """Let time pass until the fault is over."""
        while time.monotonic() < self.began_at + self.lasts_s:
            yield

    def _candidates(self) -> list[int]:
        role = self.target.partition("/")[2] or "head"
        if self.target == "workers/isolated":
            return [pid for name in WORKER_NAMES for pid in self.stack.dynos[name].pids("isolated")]
        if self.place == "redis":
            return [self.stack.redis.pid]
        if self.place == "pooler":
            return [self.stack.pooler.pid] if self.stack.pooler else []
        if self.place == "postgres":
            return [self.stack.postgres.pid] if role == "head" else self._backends()
        return self.stack.dynos[self.place].pids(role)

    def _backends(self) -> list[int]:
        return [pid for pid in descendants(self.stack.postgres.pid) if "[local]" in " ".join(command_line(pid))]


def place_of(target: str) -> str:
    """Name the dyno, server or proxy of a target: two faults never strike the same one at once."""
    return target.partition("/")[0]
