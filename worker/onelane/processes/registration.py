"""Registers this process with RQ: heartbeat, suspend, shutdown. The only file that subclasses RQ.

RQ's own loop, which sleeps while suspended and installs signal handlers, is not used: only the registration, the
heartbeat and the commands are.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from os import getpid
from socket import gethostname
from types import MappingProxyType
from typing import Final
from uuid import uuid4

import redis
from rq.utils import now, utcformat
from rq.worker import BaseWorker, WorkerStatus

from onelane.errors import LanesUnavailable, kind_of
from onelane.lanes.refusals import translated
from onelane.lanes.roster import Noted
from onelane.model import JsonObject
from onelane.processes.commands import Commands
from onelane.telemetry.log import event

NO_SLOTS: Final[Mapping[str, int]] = MappingProxyType({})
ON_A_LANE_TTL_S: Final = 60
REPEAT_S: Final = 10.0
SHOWN_MAX: Final = 100
"""Lanes of one worker that RQ's tools show; they need seconds for hundreds."""
JOINED_MAX: Final = 10
"""Lanes that begin to be shown at one beat."""


class Registration(BaseWorker):  # type: ignore[misc]  # RQ's types are incomplete
    """A registered RQ worker without queues of its own; it obeys suspend, resume and shutdown."""

    def __init__(
        self,
        connection: redis.Redis,
        name: str,
        note: Callable[[str, JsonObject | None], Noted],
        isolation: Callable[[], str] = lambda: "",
        slots: Mapping[str, int] = NO_SLOTS,
    ) -> None:
        """`note` notes a heartbeat by Redis' clock, and what RQ's tools are to show.

        `isolation` answers the state of what runs suspect messages apart, which the doctor reads. `slots`: how many of
        each kind of lanes.
        It raises LanesForeign when this Redis belongs to another deployment: then nothing is written.
        """
        try:
            super().__init__([], name=name, connection=connection)
        except Exception as error:
            raise translated(error) from error
        self._note = note
        self._isolation = isolation
        self._slots = json.dumps(dict(slots))
        self._commands = Commands(connection, self.pubsub_channel_name, self.handle_payload)
        self.is_suspended = True
        """Until Redis was asked."""
        self._shown: dict[str, float] = {}
        """Lanes that RQ's tools show, and when that was written."""
        self._at_hand: frozenset[str] = frozenset()
        """At the last beat. A lane is shown from the second beat on: most turns are shorter."""
        self._written: tuple[str, ...] | None = None
        self._written_at = 0.0

    def queue_names(self) -> list[str]:
        """Name lanes at hand: what `rq info` and the dashboard show as this worker's queues."""
        return list(self._shown)

    def beat(self, lanes: Iterable[str]) -> None:
        """Note a heartbeat, with what is news of the lanes; obey commands, and whether to take no more work."""
        try:
            self._note_lanes(frozenset(lanes))
        finally:
            self._commands.read()

    def withdraw(self) -> None:
        """Take the registration back; where Redis does not let us, it runs out by itself."""
        self._commands.close()
        try:
            self.register_death()
        except Exception:  # noqa: BLE001 - whatever Redis answers, or does not
            event("worker_not_unregistered", worker=self.name)

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        """Leave the connections' time-out as it is. RQ would raise it to minutes, as if we were to block on queues."""
        return connection

    def _note_lanes(self, at_hand: frozenset[str]) -> None:
        try:
            noted = self._note(self.name, self._news(at_hand))
            was_suspended, self.is_suspended = self.is_suspended, noted.is_suspended
            if not noted.is_known:
                self._register()  # which a full Redis refuses: work goes on
            if not noted.is_known or self.is_suspended != was_suspended:
                self._note(self.name, self._news(at_hand))
        except LanesUnavailable:
            self._written = None
            raise
        except Exception as error:
            self._written = None
            if (outage := translated(error)) is not error:
                raise outage from error
            event("worker_not_registered", worker=self.name, error=kind_of(error))
        self._at_hand = at_hand

    def _register(self) -> None:
        """Register, the first time or after Redis lost its memory."""
        self._shown, self._written = {}, None
        self.register_birth()

    def _news(self, at_hand: frozenset[str]) -> JsonObject | None:
        """Return what RQ's tools are to show from now on, as register.lua has it; None when nothing is news."""
        moment = time.monotonic()
        left = [lane for lane in self._shown if lane not in at_hand]
        kept = [lane for lane, at in self._shown.items() if lane in at_hand and moment - at > ON_A_LANE_TTL_S / 3]
        stayed = sorted((at_hand & self._at_hand) - self._shown.keys())
        joined = stayed[: min(JOINED_MAX, SHOWN_MAX - len(self._shown) + len(left))]
        self._shown = {lane: at for lane, at in self._shown.items() if lane in at_hand}
        self._shown.update((lane, moment) for lane in [*kept, *joined])
        busy = WorkerStatus.BUSY if at_hand else WorkerStatus.IDLE
        state = WorkerStatus.SUSPENDED if self.is_suspended else busy
        lanes = ("queues", ",".join(self._shown), "lanes", str(len(at_hand)))
        shown = ("state", state, *lanes, "isolation", self._isolation(), "slots", self._slots)
        if shown == self._written and not kept and moment - self._written_at < REPEAT_S:
            return None
        self._written, self._written_at = shown, moment
        return {
            "fields": [*shown, "last_heartbeat", utcformat(now())],
            "kept_s": self.worker_ttl + 60,
            "left": left,
            "joined": [*joined, *kept],
            "lane_s": ON_A_LANE_TTL_S,
        }


def worker_name() -> str:
    """Name this process, uniquely and readably, as RQ's tools show it."""
    return f"onelane.{gethostname()}.{getpid()}.{uuid4().hex[:8]}"
