"""A worker process, wired over the services."""

import threading
from dataclasses import dataclass
from functools import partial

from onelane import forks, keys
from onelane.bootstrap.services import Services, open_services, redis_access, start_tracing
from onelane.channels.senders import Senders
from onelane.config import Settings
from onelane.lanes.keeper import Keeper
from onelane.lanes.lanes import Lanes
from onelane.outbox.broken import BrokenChannels
from onelane.outbox.presence import Presence
from onelane.outbox.records import SendRecords
from onelane.outbox.shipments import Shipments
from onelane.postgres.budget import Connections
from onelane.postgres.db import Clock, database_clock
from onelane.processes.alone import alone
from onelane.processes.duties import Duties
from onelane.processes.registration import Registration, worker_name
from onelane.processes.retention import days_kept
from onelane.processes.runner import Crew, Runner, Work
from onelane.processes.slots import Slots
from onelane.processes.starting import once_there
from onelane.sessions import publish_policies
from onelane.turns.bots import Bots
from onelane.turns.event_loop import WorkLoop
from onelane.turns.files import Fetches, Files
from onelane.turns.handling import Handling
from onelane.turns.hosting import Host
from onelane.turns.isolation import Isolation
from onelane.turns.loading import load_bots
from onelane.turns.pacing import parked_max_s
from onelane.turns.records import Records
from onelane.turns.uploads import Uploads
from onelane.turns.workplace import Workplace

WORKER_REDIS_TIMEOUT_S = 3
"""What a worker waits for Redis before it calls it away."""
WORKER_POOL_WAIT_S = 10
"""Hundreds of slots share a few connections, and their leases live while they wait."""


@dataclass(frozen=True)
class Worker:
    """A worker process, ready to run once."""

    services: Services
    runner: Runner
    isolation: Isolation
    signs: Presence
    shipments: Shipments | None
    """None: it sends no replies."""

    def probe_isolation(self) -> None:
        """Find out, beside the work, whether a suspect message could run apart; the log tells if not."""
        threading.Thread(target=self.isolation.probe, name="probe", daemon=True).start()

    def stop(self, *signal: object) -> None:
        """Ask it to end; safe as a signal handler."""
        self.runner.stop(*signal)

    def run(self, *, burst: bool = False) -> int:
        """Work until stopped (`burst`: until nothing is due), close everything, and return the exit code."""
        try:
            return self.runner.run(burst=burst)
        finally:
            if self.shipments is not None:
                self.runner.ending.while_there_is_time(self.shipments.close)
            self.runner.ending.while_there_is_time(self.signs.close)
            self.runner.ending.while_there_is_time(self.services.close)
            self.runner.ending.disarm()


def open_worker(
    settings: Settings, *, now: Clock = database_clock, bots: Bots | None = None, files: Fetches | None = None
) -> Worker:
    """Wire a worker process: its handler, its registration with RQ, its slots. Waits for servers that are away.

    `bots` and `files` are those of a test; else the settings name the bots, and the providers have the files.
    """
    bots = bots or load_bots(settings)
    forks.guard()
    start_tracing(settings, "worker")
    services = open_services(
        settings,
        now=now,
        redis_timeout_s=WORKER_REDIS_TIMEOUT_S,
        pool_wait_s=WORKER_POOL_WAIT_S,
        pools=Connections(settings.db_pool_max, settings.redis_pool_max),
    )
    try:
        return _wired(settings, services, bots, files or Files(settings, services.providers))
    except BaseException:
        services.close()
        raise


def _wired(settings: Settings, services: Services, bots: Bots, files: Fetches) -> Worker:
    """Wire what works over the services, once the servers are there."""
    isolation = Isolation(settings)
    once_there(services.database.ping)
    for lanes in services.all_lanes:
        once_there(lanes.probe)
    registration = once_there(lambda: _registration(settings, services.lanes, isolation))
    once_there(lambda: publish_policies(services.database, map(bots.completed, settings.policies)))
    stopping, loop = threading.Event(), WorkLoop()
    host = Host(settings.turn_timeout_s, loop.clock)
    senders = Senders(services.providers)
    uploads = Uploads(services.database)
    shown = services.providers if keys.IN in settings.worker_kinds else {}
    signs = Presence(settings, shown, loop, BrokenChannels(services.database))
    workplace = Workplace(
        settings,
        services.lanes,
        services.out_lanes,
        Records(settings, services.database, stopping, senders.apologies(settings.channels)),
        Handling(settings, services.sessions, bots, host, isolation, files, senders, uploads, signs.during),
        stopping,
        loop,
    )
    renewals = redis_access(settings, WORKER_REDIS_TIMEOUT_S, WORKER_REDIS_TIMEOUT_S, 1)
    lifetimes = (settings.lock_ttl_s, settings.stall_limit_s)
    duties = (services.database, services.all_lanes, services.sessions, services.failures, registration.name)
    crew = Crew(
        registration,
        Duties(*duties, parked_max_s=parked_max_s(settings), retention=days_kept(settings)),
        Keeper(registration.name, renewals, *lifetimes, services.lanes.scripts.owner.database_id()),
    )
    slots = Slots(settings.worker_slots, workplace)
    shipments = _shipments(settings, services, workplace) if keys.OUT in settings.worker_kinds else None
    work = [Work(services.lanes, slots)] if keys.IN in settings.worker_kinds else []
    if shipments is not None:
        work.append(Work(services.out_lanes, shipments))
    return Worker(services, Runner(settings, workplace, crew, slots, work), isolation, signs, shipments)


def _registration(settings: Settings, lanes: Lanes, isolation: Isolation) -> Registration:
    """Register with RQ."""
    slots = {keys.IN: settings.worker_slots, keys.OUT: settings.send_slots}
    worked: dict[str, int] = {kind: slots[kind] for kind in settings.worker_kinds}
    return Registration(lanes.client, worker_name(), lanes.roster.note, lambda: isolation.state, worked)


def _shipments(settings: Settings, services: Services, workplace: Workplace) -> Shipments:
    """Wire what sends replies, on the same loop."""
    records = SendRecords(settings, services.database)
    loop, stopping = workplace.loop, workplace.stopping
    tell = partial(alone, "tell_failures", services.failures.tell)
    return Shipments(settings, services.out_lanes, records, services.providers, loop, stopping, tell)
