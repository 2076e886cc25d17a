"""How many connections the processes open at most, and why one was refused.

Small plans allow 20 connections to Postgres and 20 to Redis, and in a deploy the old processes and the new ones are
there at once. So every process has two pools of fixed sizes, and everything in it goes through them; a worker's
listening for RQ's commands keeps one of its connections to Redis for good, an idle worker's waiting for work another,
and the helper process that renews its leases has one of its own.
Beside these, `lanekeeper migrate` opens one connection to Postgres, and any other command what a web process may.
"""

import ssl
from typing import Final, NamedTuple, Self

from worker.config import Settings

RENEWAL: Final = 1
DEPLOY_FACTOR: Final = 2
"""Old and new processes overlap in a deploy."""

POSTGRES_REFUSALS: Final = {
    "certificate verify failed": "its certificate is not trusted: name whom to trust by sslrootcert in DATABASE_URL",
    "does not match host name": "its certificate is for another host than that in DATABASE_URL",
    "root certificate file": "there is no file to verify its certificate by: name it by sslrootcert in DATABASE_URL",
    "does not support SSL": "it speaks no TLS, which sslmode in DATABASE_URL (or PGSSLMODE) asks for",
    "authentication failed": "it refuses the user or the password in DATABASE_URL",
    "too many ": "all connections that it allows are in use",
    "connection slots": "all connections that it allows are in use",
}
"""What libpq or the server says, in our words: theirs name hosts and users."""


class Connections(NamedTuple):
    """So many to each server."""

    postgres: int
    redis: int

    def times(self, count: int) -> Self:
        """Multiply both."""
        return self._replace(postgres=self.postgres * count, redis=self.redis * count)

    def plus(self, other: "Connections") -> Self:
        """Add both."""
        return self._replace(postgres=self.postgres + other.postgres, redis=self.redis + other.redis)


def web_process(settings: Settings) -> Connections:
    """Tell what one of gunicorn's processes opens at most."""
    return Connections(settings.web_db_pool_max, settings.web_redis_pool_max)


def worker_process(settings: Settings) -> Connections:
    """Tell what one `lanekeeper worker` opens at most, however many slots it has."""
    return Connections(settings.db_pool_max, settings.redis_pool_max + RENEWAL)


def budget(settings: Settings, *, webs: int = 1, workers: int = 1, overlaps: bool = True) -> Connections:
    """Tell what `webs` web and `workers` worker dynos open at most: twice that while a deploy overlaps."""
    running = web_process(settings).times(webs * settings.web_concurrency).plus(worker_process(settings).times(workers))
    return running.times(DEPLOY_FACTOR if overlaps else 1)


def postgres_refusal(error: Exception) -> str:
    """Say why Postgres let nobody in, without repeating what it said."""
    said = str(error)
    return next((words for sign, words in POSTGRES_REFUSALS.items() if sign in said), "it cannot be reached")


def redis_refusal(error: BaseException) -> str | None:
    """Say what is wrong with Redis' certificate; None when that is not what `error` comes from."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"Redis' certificate is not trusted ({cause.verify_message}): name whom to trust in REDIS_TLS_CA_FILE, "
            "or trust anybody with REDIS_TLS_VERIFY=false"
        )
    return "Redis does not speak TLS as we do: check REDIS_URL (redis:// is without)" if cause else None
