"""The doctor: runs every check, one after the other, each with a deadline of its own.

The checks read. Two of them write, and undo it themselves: the definitions are compared in a schema that is rolled
back, and the sessions are tried on scratch users that are removed.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import NamedTuple

import psycopg
import redis
from pydantic import computed_field

from onelane.doctor import (
    connections,
    fences,
    handlers,
    inbox,
    lanes,
    operators,
    providers,
    quarantine,
    replies,
    schema,
    servers,
    sessions,
    tracing,
)
from onelane.doctor.finding import Deployment, Finding, Health, failed
from onelane.errors import LanesForeign, LanesUnavailable, StoreUnavailable
from onelane.importing import IMPORT_MAX_S
from onelane.model import Value

DEADLINE_S = 15.0
BOTS_S = IMPORT_MAX_S - 2.0
"""An import may take about as long as a worker lets it. A little later it ends the process, which has answered then."""

LATE = "find out what delays the servers, and run the doctor again"
LATE_BOTS = f"a worker gives each bot {IMPORT_MAX_S:g} s to be imported: find out what its module does so long"
CHECK_POSTGRES = "check DATABASE_URL, and that the server runs"
CHECK_REDIS = "check REDIS_URL, and that the server runs"
CHECK_OWNER = (
    "set REDIS_PREFIX, or another REDIS_URL; if this database was restored or replaced: onelane doctor --adopt-redis"
)
EXPLANATIONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...] = (
    (psycopg.errors.QueryCanceled, "Postgres needs longer than a statement may take", "find out what delays it"),
    (StoreUnavailable, "{text}", CHECK_POSTGRES),
    (LanesForeign, "the lanes in Redis are those of another database", CHECK_OWNER),
    (LanesUnavailable, "{text}", CHECK_REDIS),
    (psycopg.OperationalError, "Postgres did not answer: {kind}", CHECK_POSTGRES),
    (psycopg.Error, "Postgres answers: {text}", "see the checks `migrations`, `functions` and `tables`"),
    ((redis.exceptions.ConnectionError, redis.exceptions.TimeoutError), "Redis did not answer: {kind}", CHECK_REDIS),
    (redis.RedisError, "Redis answers: {text}", "allow this user the command, or use another"),
    (Exception, "the check itself failed: {kind}", "report this bug"),
)
"""What an error that ends a check means; the first entry that matches counts."""


class Check(NamedTuple):
    """One check, and the checks that must not have failed before it."""

    name: str
    run: Callable[[Deployment], Finding]
    needs: tuple[str, ...] = ()
    within_s: float | None = None
    """Its own deadline, in place of the examination's."""
    late: str = LATE
    """What to do when it takes longer."""


WITHOUT_BOTS = (
    Check("postgres", servers.postgres),
    Check("redis", servers.redis_server),
    Check("owner", servers.owner, ("postgres", "redis")),
    Check("eviction", servers.eviction, ("redis",)),
    Check("memory", servers.memory, ("redis",)),
    Check("clocks", servers.clocks, ("postgres", "redis")),
    Check("migrations", schema.migrations_are_current, ("postgres",)),
    Check("functions", schema.functions_match, ("postgres",)),
    Check("tables", schema.tables_match, ("postgres",)),
    Check("one session", sessions.one_session_each, ("postgres",)),
    Check("same session", sessions.resolves_to_one, ("postgres",)),
    Check("ten seconds", sessions.ten_seconds_apart, ("postgres",)),
    Check("time zones", sessions.zones_agree, ("postgres",)),
    Check("time", sessions.time_goes_on, ("postgres",)),
    Check("anomalies", sessions.anomalies, ("postgres",)),
    Check("fences", fences.fences_are_credible, ("postgres", "owner")),
    Check("lanes", lanes.lanes_agree, ("postgres", "owner")),
    Check("replies", replies.replies_leave, ("postgres",)),
    Check("ways to send", replies.channels_can_send),
    Check("reply lanes", replies.replies_have_lanes, ("postgres", "owner")),
    Check("workers", lanes.workers_live, ("owner",)),
    Check("inbox", inbox.inbox_has_room, ("postgres",)),
    Check("handlers", handlers.handlers_succeed, ("postgres",)),
    Check("quarantine", quarantine.quarantine_is_empty, ("postgres",)),
    Check("operators", operators.addresses_are_known, ("redis",)),
    Check("isolation", handlers.suspects_run_apart, ("owner",)),
    Check("connections", connections.connections_suffice, ("postgres", "redis")),
    Check("tracing", tracing.spans_arrive),
)
"""For a process that may not import bots, as the web."""
BOTS = Check("bots", handlers.bots_load, within_s=BOTS_S, late=LATE_BOTS)
CHECKS = (*WITHOUT_BOTS, BOTS)
"""An import that hangs ends the process: it is the last, also behind PROVIDERS."""
QUICK_NAMES = frozenset(
    {"postgres", "redis", "owner", "eviction", "memory", "ways to send", "workers", "operators", "isolation"}
)
QUICK = tuple(check for check in CHECKS if check.name in QUICK_NAMES)
"""Those that read a row or a few keys, and write nothing: they may be run every few seconds."""
PROVIDERS = Check("providers", providers.providers_answer)
"""Asks others' servers, so it is made on request."""


class Examined(Value):
    """A check's name and what it found."""

    check: str
    finding: Finding


class Diagnosis(Value):
    """All findings."""

    examined: tuple[Examined, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def health(self) -> Health:
        """The worst finding."""
        order = list(Health)
        return max((one.finding.health for one in self.examined), key=order.index, default=Health.OK)


def examine(
    deployment: Deployment, checks: Sequence[Check] = CHECKS, *, deadline_s: float = DEADLINE_S
) -> Iterator[Examined]:
    """Run the checks one after the other; each takes at most `deadline_s`, or its own deadline."""
    failures: set[str] = set()
    for check in checks:
        missing = [name for name in check.needs if name in failures]
        finding = _skipped(missing[0]) if missing else _run_within(check.within_s or deadline_s, check, deployment)
        if finding.health is Health.FAILED:
            failures.add(check.name)
        yield Examined(check=check.name, finding=finding)


def _skipped(server: str) -> Finding:
    return failed(f"not checked, because the check `{server}` failed", f"repair `{server}` first")


def _run_within(deadline_s: float, check: Check, deployment: Deployment) -> Finding:
    """Run the check in a thread; when its time is over, the thread is left to itself."""
    answer: SimpleQueue[Finding] = SimpleQueue()
    threading.Thread(target=lambda: answer.put(_run(check, deployment)), name=check.name, daemon=True).start()
    try:
        return answer.get(timeout=deadline_s)
    except Empty:
        return failed(f"no answer within {deadline_s:g} s", check.late)


def _run(check: Check, deployment: Deployment) -> Finding:
    try:
        return check.run(deployment)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a check is a finding
        return _explained(error)


def _explained(error: Exception) -> Finding:
    if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
        error = error.__cause__
    found, todo = next((found, todo) for kinds, found, todo in EXPLANATIONS if isinstance(error, kinds))
    text = (str(error).splitlines() or [""])[0]
    return failed(found.format(text=text, kind=type(error).__name__), todo)
