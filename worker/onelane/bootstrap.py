"""The only place that wires things together and opens connections."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import redis

from onelane import forks, keys
from onelane.budget import Connections, web_process
from onelane.channels import Provider, providers
from onelane.channels.normalizing import normalizers
from onelane.channels.senders import Senders
from onelane.config import Settings
from onelane.db import Clock, Database, database_clock
from onelane.errors import LanesForeign, LanesUnavailable
from onelane.gathering import Gatherer
from onelane.identity import Identity
from onelane.intake import Intake
from onelane.lanes.keeper import Keeper
from onelane.lanes.lanes import Lanes
from onelane.lanes.scripts import Owner, connect
from onelane.model import JsonObject
from onelane.operations.acts import Acts
from onelane.outbox.broken import BrokenChannels
from onelane.outbox.presence import Presence
from onelane.periodic import Periodic
from onelane.processes.duties import Duties
from onelane.processes.registration import Registration, worker_name
from onelane.processes.runner import Crew, Runner, Work
from onelane.processes.slots import Slots
from onelane.processes.starting import once_there
from onelane.processes.upload import Upload
from onelane.quarantine import Quarantine
from onelane.receiving import Receiving
from onelane.sessions import Sessions, publish_policies
from onelane.statuses import Statuses
from onelane.telemetry import session_notices
from onelane.turns.bots import Bots
from onelane.turns.event_loop import WorkLoop
from onelane.turns.files import Files
from onelane.turns.handling import Handling
from onelane.turns.hosting import Host
from onelane.turns.isolation import Isolation
from onelane.turns.loading import load_bots
from onelane.turns.pacing import parked_max_s
from onelane.turns.records import Records
from onelane.turns.workplace import Workplace

INTAKE_REDIS_TIMEOUT_S = 0.5
INTAKE_POOL_WAIT_S = 2
POSTPONED_EVERY_S = 1.0
WORKER_REDIS_TIMEOUT_S = 3
"""What a worker waits for Redis before it calls it away."""
WORKER_POOL_WAIT_S = 10
"""Hundreds of slots share a few connections, and their leases live while they wait."""


@dataclass(frozen=True)
class Services:
    """Everything a process needs, connected."""

    settings: Settings
    database: Database
    lanes: Lanes
    out_lanes: Lanes
    intake: Intake
    receiving: Receiving
    quarantine: Quarantine
    accepts: Gatherer
    sessions: Sessions
    acts: Acts
    upload: Upload
    postponed: Periodic
    providers: Mapping[str, Provider]
    """By the channel's name."""

    @property
    def all_lanes(self) -> tuple[Lanes, ...]:
        """The lanes of all kinds."""
        return self.lanes, self.out_lanes

    def close(self) -> None:
        """Give all connections back."""
        self.postponed.stop()
        self.upload.close()
        self.accepts.close()
        self.database.close()
        self.lanes.client.close()


@dataclass(frozen=True)
class Worker:
    """A worker process, ready to run once."""

    services: Services
    runner: Runner
    isolation: Isolation
    signs: Presence

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
            self.runner.ending.while_there_is_time(self.signs.close)
            self.runner.ending.while_there_is_time(self.services.close)
            self.runner.ending.disarm()


def open_worker(settings: Settings, *, now: Clock = database_clock) -> Worker:
    """Wire a worker process: its handler, its registration with RQ, its slots. Waits for servers that are away."""
    bots = load_bots(settings)
    forks.guard()
    services = open_services(
        settings,
        now=now,
        redis_timeout_s=WORKER_REDIS_TIMEOUT_S,
        pool_wait_s=WORKER_POOL_WAIT_S,
        pools=Connections(settings.db_pool_max, settings.redis_pool_max),
    )
    try:
        return _wired(settings, services, bots)
    except BaseException:
        services.close()
        raise


def _wired(settings: Settings, services: Services, bots: Bots) -> Worker:
    """Wire what works over the services, once the servers are there."""
    lanes = services.lanes
    isolation = Isolation(settings)
    once_there(services.database.ping)
    once_there(services.lanes.probe)
    once_there(services.out_lanes.probe)
    registration = once_there(
        lambda: Registration(lanes.client, worker_name(), lanes.roster.note, lambda: isolation.state)
    )
    once_there(lambda: publish_policies(services.database, map(bots.completed, settings.policies)))
    stopping, loop = threading.Event(), WorkLoop()
    host = Host(settings.turn_timeout_s, loop.clock)
    files, senders = Files(settings, services.providers), Senders(services.providers)
    signs = Presence(settings, services.providers, loop, BrokenChannels(services.database))
    workplace = Workplace(
        settings,
        services.lanes,
        services.out_lanes,
        Records(settings, services.database, stopping, senders.apologies(settings.channels)),
        Handling(settings, services.sessions, bots, host, isolation, files, senders, signs.during),
        stopping,
        loop,
    )
    renewals = _redis_access(settings, WORKER_REDIS_TIMEOUT_S, WORKER_REDIS_TIMEOUT_S, 1)
    lifetimes = (settings.lock_ttl_s, settings.stall_limit_s)
    duties = (services.database, services.all_lanes, services.sessions, registration.name)
    crew = Crew(
        registration,
        Duties(*duties, parked_max_s=parked_max_s(settings)),
        Keeper(registration.name, renewals, *lifetimes, services.lanes.scripts.owner.database_id()),
    )
    slots = Slots(settings.worker_slots, workplace)
    work = [one for one in (Work(services.lanes, slots),) if one.lanes.kind in settings.worker_kinds]
    return Worker(services, Runner(settings, workplace, crew, slots, work), isolation, signs)


def open_services(
    settings: Settings,
    *,
    now: Clock = database_clock,
    redis_timeout_s: float = INTAKE_REDIS_TIMEOUT_S,
    pool_wait_s: float = INTAKE_POOL_WAIT_S,
    pools: Connections | None = None,
) -> Services:
    """Wire the services; nothing connects before it is used. `now` replaces the database's clock, for replays.

    Raise ConfigError when a channel's provider is unknown or its own settings are impossible. Without `pools` they
    may open what a web process may; `pool_wait_s` is what a thread waits for one of those.
    """
    by_channel, spellings = providers(settings.channels), normalizers(settings.channels)
    pools = pools or web_process(settings)
    database = _database(settings, pools.postgres, pool_wait_s)
    client = connect(**_redis_access(settings, redis_timeout_s, pool_wait_s, pools.redis))
    lanes, out_lanes = _lanes(client, database)
    accepts = Gatherer(database.asks("accept"), at_once=pools.postgres)
    intake = Intake(settings, accepts, database.breaker, lanes, now)
    quarantine = Quarantine(database, settings.quarantine_max, settings.quarantine_days)
    sessions = Sessions(database, lanes, now)
    services = Services(
        settings=settings,
        database=database,
        lanes=lanes,
        out_lanes=out_lanes,
        intake=intake,
        receiving=Receiving(by_channel, database.breaker, intake, Statuses(database), quarantine, spellings),
        quarantine=quarantine,
        accepts=accepts,
        sessions=sessions,
        acts=Acts(database, lanes, sessions),
        upload=Upload(lanes.add_numbers),
        postponed=Periodic("postponed", intake.enqueue_postponed, POSTPONED_EVERY_S),
        providers=by_channel,
    )
    services.upload.start()
    services.postponed.start()
    return services


def _database(settings: Settings, connections_max: int, wait_s: float) -> Database:
    """Make the pool of connections to Postgres, or to what stands before it."""
    return Database(
        settings.database_url,
        pooler=settings.pg_pooler,
        pool_max=connections_max,
        wait_s=wait_s,
        on_notice=session_notices.on_notice,
    )


def _lanes(client: redis.Redis, database: Database) -> list[Lanes]:
    """Make the lanes of each kind."""
    owner = Owner(Identity(database).id)
    return [Lanes(client, kind, owner=owner) for kind in keys.KINDS]


def refuse_foreign_lanes(lanes: Lanes) -> None:
    """Raise LanesForeign when another deployment uses this Redis; with a server away, that is found out later."""
    try:
        lanes.check_owner()
    except LanesForeign:
        raise
    except LanesUnavailable:
        return


def _redis_access(settings: Settings, timeout_s: float, wait_s: float, connections_max: int) -> JsonObject:
    """Return the arguments of `scripts.connect`, as JSON has them."""
    return {
        "url": settings.redis_url,
        "timeout_s": timeout_s,
        "wait_s": wait_s,
        "connections_max": connections_max,
        "verify_tls": settings.redis_tls_verify,
        "ca_file": settings.redis_tls_ca_file and str(settings.redis_tls_ca_file),
        "prefix": settings.redis_prefix,
    }
