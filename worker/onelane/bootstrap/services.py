"""What every process needs: connections, and what works over them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

from onelane import keys
from onelane.channels import Provider, providers
from onelane.channels.normalizing import normalizers
from onelane.config import Settings
from onelane.errors import LanesForeign, LanesUnavailable
from onelane.failures import Failures
from onelane.gathering import Gatherer
from onelane.identity import Identity
from onelane.inbox.intake import Intake
from onelane.inbox.quarantine import Quarantine
from onelane.inbox.receiving import Receiving
from onelane.inbox.statuses import Statuses
from onelane.lanes.enqueueing import Enqueueing
from onelane.lanes.lanes import Lanes
from onelane.lanes.scripts import Owner, connect
from onelane.model import JsonObject
from onelane.operations.acts import Acts
from onelane.operations.replies import ReplyActs
from onelane.periodic import Periodic
from onelane.postgres.budget import Connections, web_process
from onelane.postgres.db import Clock, Database, database_clock
from onelane.processes.upload import Upload
from onelane.rejecting import BusyReplies
from onelane.saying import Saying
from onelane.sessions import Sessions
from onelane.telemetry import sql_notices, tracing

INTAKE_REDIS_TIMEOUT_S = 0.5
INTAKE_POOL_WAIT_S = 2
POSTPONED_EVERY_S = 1.0


@dataclass(frozen=True)
class Services:
    """Everything a process needs; it connects when it is used."""

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
    reply_acts: ReplyActs
    failures: Failures
    saying: Saying
    upload: Upload
    postponed: Periodic
    providers: Mapping[str, Provider]
    """By the channel's name."""

    @property
    def all_lanes(self) -> tuple[Lanes, ...]:
        """The lanes of all kinds."""
        return self.lanes, self.out_lanes

    def started(self) -> Self:
        """Start what runs beside the work."""
        self.upload.start()
        self.postponed.start()
        return self

    def close(self) -> None:
        """Give all connections back."""
        self.postponed.stop()
        self.upload.close()
        self.accepts.close()
        self.database.close()
        self.lanes.client.close()
        tracing.stop()


def start_tracing(settings: Settings, process: str) -> None:
    """Send spans of what this process does from now on, where the settings say so."""
    if settings.is_traced:
        tracing.start(process)


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
    database, lanes, out_lanes = _servers(settings, pools, pool_wait_s, redis_timeout_s)
    turns, replies = Enqueueing(lanes), Enqueueing(out_lanes)
    accepts = Gatherer(database.asks("accept"), at_once=pools.postgres)
    intake = Intake(settings, accepts, database.breaker, turns, now, BusyReplies(settings, by_channel, replies))
    quarantine = Quarantine(database, settings.quarantine_max, settings.quarantine_days)
    sessions, failures = Sessions(database, lanes, now), Failures(database, turns)
    statuses = Statuses(database, by_channel, out_lanes, failures)
    return Services(
        settings=settings,
        database=database,
        lanes=lanes,
        out_lanes=out_lanes,
        intake=intake,
        receiving=Receiving(by_channel, database.breaker, intake, statuses, quarantine, spellings),
        quarantine=quarantine,
        accepts=accepts,
        sessions=sessions,
        acts=Acts(database, lanes, sessions),
        reply_acts=ReplyActs(database, out_lanes, failures),
        failures=failures,
        saying=Saying(database, replies, by_channel, spellings, now),
        upload=Upload(lanes.add_numbers),
        postponed=Periodic("postponed", partial(_enqueue_postponed, turns, replies), POSTPONED_EVERY_S),
        providers=by_channel,
    ).started()


def _servers(
    settings: Settings, pools: Connections, wait_s: float, redis_timeout_s: float
) -> tuple[Database, Lanes, Lanes]:
    """Make the pools of connections: to Postgres, or what stands before it, and to Redis, for both kinds of lanes."""
    database = Database(
        settings.database_url,
        pooler=settings.pg_pooler,
        pool_max=pools.postgres,
        wait_s=wait_s,
        on_notice=sql_notices.on_notice,
    )
    client = connect(**redis_access(settings, redis_timeout_s, wait_s, pools.redis))
    owner = Owner(Identity(database).id)
    return database, Lanes(client, keys.IN, owner=owner), Lanes(client, keys.OUT, owner=owner)


def _enqueue_postponed(*lanes: Enqueueing) -> None:
    """Enqueue what requests have left, on the lanes of each kind."""
    for each in lanes:
        each.enqueue_postponed()


def refuse_foreign_lanes(lanes: Lanes) -> None:
    """Raise LanesForeign when another deployment uses this Redis; with a server away, that is found out later."""
    try:
        lanes.check_owner()
    except LanesForeign:
        raise
    except LanesUnavailable:
        return


def redis_access(settings: Settings, timeout_s: float, wait_s: float, connections_max: int) -> JsonObject:
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
