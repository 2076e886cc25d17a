"""The only place that wires things together and opens connections."""

from dataclasses import dataclass
from os import getpid
from socket import gethostname
from threading import Event
from uuid import uuid4

import redis

from worker.config import Settings
from worker.db import Clock, Database, database_clock
from worker.handlers.hosting import Host
from worker.handlers.isolation import Isolation
from worker.handlers.loading import load
from worker.intake import Intake
from worker.lanes import Lanes, connect
from worker.ledger import Ledger
from worker.migrations import publish_policies
from worker.presence import Presence
from worker.recovery import Recovery
from worker.runner import REDIS_TIMEOUT_S, Runner
from worker.sessions import Sessions
from worker.turns import Turns

INTAKE_REDIS_TIMEOUT_S = 0.5
BLOCKING_REDIS_TIMEOUT_S = 5
"""Longer than an idle worker blocks."""


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
        self.database.close()
        self.lanes.client.close()


def open_runner(settings: Settings, *, now: Clock = database_clock) -> Runner:
    """Wire a worker process: its handler, its registration with RQ, its slots."""
    host = Host(load(settings.handler), settings.turn_timeout_s)
    isolation = Isolation(
        settings.handler, memory_mb=settings.suspect_memory_mb, turn_timeout_s=settings.turn_timeout_s
    )
    services = open_services(settings, now=now, redis_timeout_s=REDIS_TIMEOUT_S)
    presence = Presence(_redis(settings, BLOCKING_REDIS_TIMEOUT_S), worker_name())
    publish_policies(services.database, settings.policies)
    stopping = Event()
    ledger = Ledger(settings, services.database)
    return Runner(
        settings,
        services.lanes,
        Lanes(_redis(settings, BLOCKING_REDIS_TIMEOUT_S)),
        presence,
        Turns(settings, services.lanes, ledger, services.sessions, host, isolation, stopping),
        Recovery(services.database, services.lanes, services.sessions, presence.name),
        stopping,
    )


def worker_name() -> str:
    """Name this process, uniquely and readably, as RQ's tools show it."""
    return f"lanekeeper.{gethostname()}.{getpid()}.{uuid4().hex[:8]}"


def open_services(
    settings: Settings,
    *,
    now: Clock = database_clock,
    redis_timeout_s: float = INTAKE_REDIS_TIMEOUT_S,
) -> Services:
    """Wire the services; nothing connects before it is used. `now` replaces the database's clock, for replays."""
    database = Database(settings.database_url, pool_max=settings.db_pool_max)
    lanes = Lanes(_redis(settings, redis_timeout_s))
    return Services(
        settings=settings,
        database=database,
        lanes=lanes,
        intake=Intake(settings, database, lanes, now),
        sessions=Sessions(database, lanes, now),
    )


def _redis(settings: Settings, timeout_s: float) -> redis.Redis:
    return connect(settings.redis_url, timeout_s=timeout_s, verify_tls=settings.redis_tls_verify)
