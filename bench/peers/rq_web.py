"""The same web for RQ: our endpoint, signature check and SQL; then a job on RQ's queue instead of on a lane."""

import atexit
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import redis
from flask import Flask

from bench.peers.accepting import accept
from bench.peers.rq_workers import Enqueue, enqueue_locked, enqueue_rate_limited
from onelane.bootstrap import open_services
from onelane.config import Settings
from onelane.deliveries import Accepted, Delivery
from onelane.inbox.intake import Intake, Note
from onelane.inbox.receiving import Receiving
from onelane.inbox.statuses import Statuses
from onelane.postgres.db import Database
from onelane.telemetry import log as telemetry
from onelane_web import create_app


class RqIntake:
    """Takes the place of our Intake."""

    def __init__(self, database: Database, client: redis.Redis, enqueue: Enqueue) -> None:
        self._database = database
        self._client = client
        self._enqueue = enqueue

    def outcomes(self, _channel: str, deliveries: Sequence[Delivery], _note: Note, **_how: bool) -> list[Accepted]:
        """Commit, then enqueue."""
        accepted = accept(self._database, deliveries)
        self._enqueue(self._client, accepted, deliveries)
        return accepted


def locked() -> Flask:
    """Serve for workers whose jobs lock their user."""
    return _application(enqueue_locked)


def rate_limited() -> Flask:
    """Serve for workers behind RQ's RateLimit."""
    return _application(enqueue_rate_limited)


def _application(enqueue: Enqueue) -> Flask:
    settings = Settings.from_environment()
    telemetry.configure(settings.log_level, settings.log_format)
    services = open_services(settings)
    atexit.register(services.close)
    intake = cast("Intake", RqIntake(services.database, redis.Redis.from_url(settings.redis_url), enqueue))
    statuses = Statuses(services.database, services.providers, services.out_lanes, services.failures)
    breaker = services.database.breaker
    receiving = Receiving(services.providers, breaker, intake, statuses, services.quarantine)
    return create_app(replace(services, receiving=receiving))
