"""How many connections the processes open at most.

Small plans allow 20 connections to Postgres and 20 to Redis, and during a deploy old and new processes exist at once.
So every process has two pools of fixed sizes, and everything in it uses them. Of a worker's connections to Redis one is
always subscribed to RQ's commands, and an idle worker waits for work on another; the helper process that renews its
leases has one more.
`onelane migrate` opens one connection to Postgres, and every other command as many as a web process may.
"""

from typing import Final, NamedTuple, Self

from onelane.config import Settings

RENEWAL: Final = 1
DEPLOY_FACTOR: Final = 2
"""Old and new processes overlap in a deploy."""


class Connections(NamedTuple):
    """Connections to Postgres and to Redis."""

    postgres: int
    redis: int

    def times(self, count: int) -> Self:
        """Multiply both."""
        return self._replace(postgres=self.postgres * count, redis=self.redis * count)

    def plus(self, other: "Connections") -> Self:
        """Add both."""
        return self._replace(postgres=self.postgres + other.postgres, redis=self.redis + other.redis)


def web_process(settings: Settings) -> Connections:
    """Count what one of gunicorn's processes opens at most."""
    return Connections(settings.web_db_pool_max, settings.web_redis_pool_max)


def worker_process(settings: Settings) -> Connections:
    """Count what one `onelane worker` opens at most, however many slots it has."""
    return Connections(settings.db_pool_max, settings.redis_pool_max + RENEWAL)


def budget(settings: Settings, *, webs: int = 1, workers: int = 1, overlaps: bool = True) -> Connections:
    """Count what `webs` web and `workers` worker dynos open at most: twice that while a deploy overlaps."""
    running = web_process(settings).times(webs * settings.web_concurrency).plus(worker_process(settings).times(workers))
    return running.times(DEPLOY_FACTOR if overlaps else 1)
