"""Checks of the two servers: reachable, new enough, configured right, with clocks that agree."""

import time
from collections.abc import Callable

from onelane.doctor.finding import Deployment, Finding, failed, ok, warning
from onelane.errors import StoreUnavailable

REDIS_MIN = (6, 2)
POSTGRES_MIN = 150_000
OFFSET_WARNING_S = 1.0
OFFSET_FAILED_S = 30.0

MIB = 2**20
MAKE_ROOM = "raise its maxmemory, or find what fills it with `redis-cli --bigkeys`; no message is lost"
KEEP_POLICY = "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf or in your host's settings"


def postgres(deployment: Deployment) -> Finding:
    """Check that Postgres answers, is new enough, and takes writes."""
    row = deployment.database.row(
        "SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,"
        " pg_is_in_recovery() AS is_replica"
    )
    if row is None:
        raise StoreUnavailable("Postgres returned no row")
    if row.is_replica:
        return failed("this is a read-only replica", "point DATABASE_URL at the primary server")
    if row.number < POSTGRES_MIN:
        return failed(f"PostgreSQL {row.version}", f"Onelane needs PostgreSQL {POSTGRES_MIN // 10_000} or later")
    return ok(f"PostgreSQL {row.version}")


def redis_server(deployment: Deployment) -> Finding:
    """Check that Redis answers, and is new enough."""
    deployment.lanes.probe()
    version = deployment.lanes.scripts.setting("server", "redis_version")
    if version is None:
        return warning("this host hides the version of its Redis", "make sure that it is 6.2 or later")
    if tuple(int(part) for part in str(version).split(".")[:2]) < REDIS_MIN:
        return failed(f"Redis {version}", "Onelane needs Redis 6.2 or later")
    return ok(f"Redis {version}")


def owner(deployment: Deployment) -> Finding:
    """Check that the lanes in Redis are those of this database."""
    deployment.lanes.check_owner()
    return ok("the lanes in Redis are this database's")


def eviction(deployment: Deployment) -> Finding:
    """Check that Redis evicts nothing: `volatile-*` would evict locks first."""
    policy = deployment.lanes.eviction_policy()
    if policy is None:
        return warning("this host hides its maxmemory-policy", "make sure that it is `noeviction`")
    if policy != "noeviction":
        found = f"maxmemory-policy is {policy}: Redis may forget locks and lanes"
        if deployment.settings.redis_may_evict:
            return warning(f"{found}, which REDIS_MAY_EVICT allows", KEEP_POLICY)
        return failed(f"{found}, so workers take none", KEEP_POLICY)
    return ok("maxmemory-policy is noeviction")


def memory(deployment: Deployment) -> Finding:
    """Check that Redis has room."""
    used, most = (deployment.lanes.scripts.setting("memory", name) for name in ("used_memory", "maxmemory"))
    if used is None or most is None:
        return warning("this host hides how much memory its Redis has", "watch it in your host's own figures")
    found = f"{used / MIB:.1f} MB used" + (f" of {most / MIB:.1f} MB" if most else "")
    if most and used >= most:
        return warning(f"Redis is full: {found}; lanes get no jobs, nobody can log in to /ops", MAKE_ROOM)
    return ok(found)


def clocks(deployment: Deployment) -> Finding:
    """Check that the clocks of Postgres, Redis and this machine agree."""
    postgres_s = _offset_s(lambda: _postgres_time(deployment))
    redis_s = _offset_s(lambda: _redis_time(deployment))
    apart_s = max(abs(postgres_s), abs(redis_s), abs(postgres_s - redis_s))
    found = f"Postgres {postgres_s:+.3f} s, Redis {redis_s:+.3f} s from this machine"
    todo = "synchronise the clocks (NTP); sessions follow the clock of Postgres, leases that of Redis"
    if apart_s > OFFSET_FAILED_S:
        return failed(found, todo)
    return warning(found, todo) if apart_s > OFFSET_WARNING_S else ok(found)


def _postgres_time(deployment: Deployment) -> float:
    row = deployment.database.row("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
    return float(row.now) if row else 0.0


def _redis_time(deployment: Deployment) -> float:
    seconds, microseconds = deployment.lanes.scripts.ask(deployment.lanes.client.time)
    return float(seconds) + float(microseconds) / 1e6


def _offset_s(ask: Callable[[], float]) -> float:
    """Return how far a clock is ahead of ours, which is read before and after."""
    asked_at = time.time()
    answer = ask()
    return answer - (asked_at + time.time()) / 2
