"""The only place that wires things together and opens connections."""

from dataclasses import dataclass
from os import getpid
from socket import gethostname
from threading import Event
from uuid import uuid4

import redis

from worker import session_events
from worker.config import Settings
from worker.connections import Connections, redis_refusal, web_process
from worker.counters import counters
from worker.db import Clock, Database, database_clock
from worker.errors import LanesUnavailable
from worker.handlers.hosting import Host
from worker.handlers.isolation import Isolation
from worker.handlers.loading import load
from worker.intake import Intake
from worker.lanes import Lanes
from worker.ledger import Ledger
from worker.lock import Keeper
from worker.migrations import publish_policies
from worker.model import JsonObject
from worker.presence import Presence
from worker.recovery import Recovery
from worker.runner import REDIS_TIMEOUT_S, Runner
from worker.scripts import connect
from worker.sessions import Sessions
from worker.turns import Turns

INTAKE_REDIS_TIMEOUT_S = 0.5
INTAKE_POOL_WAIT_S = 2
WORKER_POOL_WAIT_S = 10
"""Hundreds of slots share a few connections, and their leases live while they wait."""


@dataclass(frozen=True)
class Services:
    """Everything a process needs, connected."""

    settings: Settings
    database: Database
    lanes: Lanes
    intake: Intake
    sessions: Sessions

    def close(self) -> None:
        """Give all connections back."""
        counters.stop(self.lanes.client)
        self.database.close()
        self.lanes.client.close()


def open_runner(settings: Settings, *, now: Clock = database_clock) -> Runner:
    """Wire a worker process: its handler, its registration with RQ, its slots."""
    host = Host(load(settings.handler), settings.turn_timeout_s)
    isolation = Isolation(
        settings.handler, memory_mb=settings.suspect_memory_mb, turn_timeout_s=settings.turn_timeout_s
    )
    pools = Connections(settings.db_pool_max, settings.redis_pool_max)
    services = open_services(
        settings, now=now, redis_timeout_s=REDIS_TIMEOUT_S, pool_wait_s=WORKER_POOL_WAIT_S, pools=pools
    )
    presence = _registered(services.lanes.client)
    publish_policies(services.database, settings.policies)
    stopping = Event()
    ledger = Ledger(settings, services.database)
    return Runner(
        settings,
        services.lanes,
        services.lanes,
        presence,
        Turns(settings, services.lanes, ledger, services.sessions, host, isolation, stopping),
        Recovery(services.database, services.lanes, services.sessions, presence.name),
        Keeper(
            _redis_access(settings, REDIS_TIMEOUT_S, REDIS_TIMEOUT_S, 1), settings.lock_ttl_s, settings.stall_limit_s
        ),
        stopping,
    )


def _registered(client: redis.Redis) -> Presence:
    """Register with RQ, over the connections that everything here shares."""
    try:
        presence = Presence(client, worker_name())
    except LanesUnavailable as error:
        raise LanesUnavailable(redis_refusal(error) or str(error)) from error
    # RQ has raised the pool's time-out to 415 s, as if it were to block on queues: take that back.
    client.connection_pool.connection_kwargs["socket_timeout"] = REDIS_TIMEOUT_S
    client.connection_pool.disconnect()
    return presence


def worker_name() -> str:
    """Name this process, uniquely and readably, as RQ's tools show it."""
    return f"lanekeeper.{gethostname()}.{getpid()}.{uuid4().hex[:8]}"


def open_services(
    settings: Settings,
    *,
    now: Clock = database_clock,
    redis_timeout_s: float = INTAKE_REDIS_TIMEOUT_S,
    pool_wait_s: float = INTAKE_POOL_WAIT_S,
    pools: Connections | None = None,
) -> Services:
    """Wire the services; nothing connects before it is used. `now` replaces the database's clock, for replays.

    Without `pools` they may open what a web process may; `pool_wait_s` is what a thread waits for one of those.
    """
    pools = pools or web_process(settings)
    database = Database(settings.database_url, pool_max=pools.postgres, wait_s=pool_wait_s, told=session_events.told)
    lanes = Lanes(_redis(settings, redis_timeout_s, pool_wait_s, pools.redis))
    counters.start(lanes.client)
    return Services(
        settings=settings,
        database=database,
        lanes=lanes,
        intake=Intake(settings, database, lanes, now),
        sessions=Sessions(database, lanes, now),
    )


def _redis(settings: Settings, timeout_s: float, wait_s: float, connections_max: int) -> redis.Redis:
    return connect(**_redis_access(settings, timeout_s, wait_s, connections_max))


def _redis_access(settings: Settings, timeout_s: float, wait_s: float, connections_max: int) -> JsonObject:
    """Word the arguments of `scripts.connect`, as JSON has them."""
    return {
        "url": settings.redis_url,
        "timeout_s": timeout_s,
        "wait_s": wait_s,
        "connections_max": connections_max,
        "verify_tls": settings.redis_tls_verify,
        "ca_file": settings.redis_tls_ca_file and str(settings.redis_tls_ca_file),
    }
