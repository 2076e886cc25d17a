"""Registers this process with RQ: heartbeat, suspend, shutdown. The only file that subclasses RQ.

RQ's own loop, which sleeps while suspended and installs signal handlers, is not used: only the registration, the
heartbeat and the commands are.
"""

import time
from collections.abc import Callable
from typing import Any

import redis
from rq.suspension import WORKERS_SUSPENDED
from rq.worker import BaseWorker, WorkerStatus
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from onelane.errors import LanesUnavailable, kind_of, reason_of
from onelane.lanes.refusals import translated
from onelane.telemetry.log import event

RECONNECT_PAUSE_S = 1.0
ON_A_LANE_TTL_S = 10
REPEAT_S = 3.0


class Registration(BaseWorker):  # type: ignore[misc]  # RQ's types are incomplete
    """A registered RQ worker without queues of its own; it obeys suspend, resume and shutdown."""

    def __init__(self, connection: redis.Redis, name: str, heartbeat: Callable[[str], object]) -> None:
        """`heartbeat` notes one by Redis' clock; RQ's is this machine's.

        It raises LanesForeign when this Redis belongs to another deployment: then nothing is written.
        """
        try:
            super().__init__([], name=name, connection=connection)
        except Exception as error:
            raise translated(error) from error
        self._heartbeat = heartbeat
        self.is_suspended = True
        """Until Redis was asked."""
        self._lanes: list[str] = []
        self._written: tuple[WorkerStatus, list[str]] | None = None
        self._written_at = 0.0

    def queue_names(self) -> list[str]:
        """Name the lanes at hand: what `rq info` and the dashboard show as this worker's queues."""
        return self._lanes

    def beat(self, lanes: list[str]) -> None:
        """Read whether this worker should take no more work; write its heartbeat and its lanes, if they are news."""
        try:
            self.is_suspended = bool(self.connection.exists(WORKERS_SUSPENDED))
            busy = WorkerStatus.BUSY if lanes else WorkerStatus.IDLE
            news = (WorkerStatus.SUSPENDED if self.is_suspended else busy, lanes)
            if news != self._written or time.monotonic() - self._written_at > REPEAT_S:
                self._write(*news)
                self._written, self._written_at = news, time.monotonic()
        except LanesUnavailable:
            self._written = None
            raise
        except Exception as error:
            self._written = None
            if (outage := translated(error)) is not error:
                raise outage from error
            event("worker_not_registered", worker=self.name, error=kind_of(error))

    def withdraw(self) -> None:
        """Take the registration back; where Redis does not let us, it runs out by itself."""
        for step in (self.register_death, self.unsubscribe):
            try:
                step()
            except Exception:  # noqa: BLE001 - whatever Redis answers, or does not
                event("worker_not_unregistered", worker=self.name)

    def _register(self) -> None:
        """Register, the first time or after Redis lost its memory, and listen to commands."""
        self._lanes = []
        self.register_birth()
        if self.pubsub_thread is None:
            self.subscribe()

    def _write(self, state: WorkerStatus, lanes: list[str]) -> None:
        self._heartbeat(self.name)
        if not self.connection.exists(self.key):
            self._register()
        left, self._lanes = set(self._lanes) - set(lanes), lanes
        with self.connection.pipeline(transaction=False) as pipeline:
            self.heartbeat(pipeline=pipeline)
            self.set_state(state, pipeline=pipeline)
            pipeline.hset(self.key, "queues", ",".join(lanes))
            for lane in left:
                pipeline.srem(WORKERS_BY_QUEUE_KEY % lane, self.key)
            for lane in lanes:  # where `rq info` looks; it runs out by itself if this process dies
                pipeline.delete(WORKERS_BY_QUEUE_KEY % lane)  # a dead worker's name, too: a lane has one holder
                pipeline.sadd(WORKERS_BY_QUEUE_KEY % lane, self.key)
                pipeline.expire(WORKERS_BY_QUEUE_KEY % lane, ON_A_LANE_TTL_S)
            pipeline.execute()

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:  # noqa: ARG002
        """Listen again after an outage, however long it was."""
        event("commands_lost", error=reason_of(translated(exc)))
        time.sleep(RECONNECT_PAUSE_S)
