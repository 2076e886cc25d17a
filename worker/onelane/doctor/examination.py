"""The doctor: every check in turn, each within a deadline of its own, whatever the servers do.

It reads. Two checks write what they take back themselves: the definitions are compared in a schema that is rolled
back, and the sessions are tried on scratch users that are removed.
"""

import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import NamedTuple

import psycopg
import redis
from pydantic import computed_field

from onelane.doctor import (
    connections as connection_checks,
)
from onelane.doctor import (
    lanes as lane_checks,
)
from onelane.doctor import (
    schema as definitions,
)
from onelane.doctor import (
    servers as server_checks,
)
from onelane.doctor import (
    sessions as session_checks,
)
from onelane.doctor.finding import Deployment, Finding, Health, failed
from onelane.errors import LanesUnavailable, StoreUnavailable
from onelane.model import Value

DEADLINE_S = 15.0

CHECK_POSTGRES = "check DATABASE_URL, and that the server runs"
CHECK_REDIS = "check REDIS_URL, and that the server runs"
EXPLANATIONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...] = (
    (psycopg.errors.QueryCanceled, "Postgres needs longer than a statement may take", "look what holds it up"),
    (StoreUnavailable, "{said}", CHECK_POSTGRES),
    (LanesUnavailable, "{said}", CHECK_REDIS),
    (psycopg.OperationalError, "Postgres did not answer: {kind}", CHECK_POSTGRES),
    (psycopg.Error, "Postgres answers: {said}", "see the checks `migrations`, `functions` and `tables`"),
    ((redis.exceptions.ConnectionError, redis.exceptions.TimeoutError), "Redis did not answer: {kind}", CHECK_REDIS),
    (redis.RedisError, "Redis answers: {said}", "allow this user the command, or use another"),
    (Exception, "the check itself broke: {kind}", "report it"),
)
"""What an error that ends a check means, the nearest kind first."""


class Check(NamedTuple):
    """One check, and the checks without which it makes no sense."""

    name: str
    run: Callable[[Deployment], Finding]
    needs: tuple[str, ...] = ()


CHECKS = (
    Check("postgres", server_checks.postgres),
    Check("redis", server_checks.redis_server),
    Check("eviction", server_checks.eviction, ("redis",)),
    Check("clocks", server_checks.clocks, ("postgres", "redis")),
    Check("migrations", definitions.migrations_are_current, ("postgres",)),
    Check("functions", definitions.functions_match, ("postgres",)),
    Check("tables", definitions.tables_match, ("postgres",)),
    Check("one session", session_checks.one_session_each, ("postgres",)),
    Check("same session", session_checks.resolves_to_one, ("postgres",)),
    Check("ten seconds", session_checks.ten_seconds_apart, ("postgres",)),
    Check("anomalies", session_checks.anomalies, ("postgres",)),
    Check("lanes", lane_checks.lanes_agree, ("postgres", "redis")),
    Check("workers", lane_checks.workers_live, ("redis",)),
    Check("connections", connection_checks.connections_suffice, ("postgres", "redis")),
)


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
        """The worst of them."""
        order = list(Health)
        return max((one.finding.health for one in self.examined), key=order.index, default=Health.OK)


def examine(deployment: Deployment, *, deadline_s: float = DEADLINE_S) -> Iterator[Examined]:
    """Run the checks one after the other; each takes at most `deadline_s`."""
    failures: set[str] = set()
    for check in CHECKS:
        missing = [name for name in check.needs if name in failures]
        finding = _unasked(missing[0]) if missing else _within(deadline_s, check, deployment)
        if finding.health is Health.FAILED:
            failures.add(check.name)
        yield Examined(check=check.name, finding=finding)


def _unasked(server: str) -> Finding:
    return failed(f"not checked, because the check `{server}` failed", f"mend `{server}` first")


def _within(deadline_s: float, check: Check, deployment: Deployment) -> Finding:
    """Run the check in a thread that is left behind when its time is over."""
    answer: SimpleQueue[Finding] = SimpleQueue()
    threading.Thread(target=lambda: answer.put(_ask(check, deployment)), name=check.name, daemon=True).start()
    try:
        return answer.get(timeout=deadline_s)
    except Empty:
        return failed(f"no answer within {deadline_s:g} s", "look what holds the servers up, and ask again")


def _ask(check: Check, deployment: Deployment) -> Finding:
    try:
        return check.run(deployment)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a check is a finding
        return _explained(error)


def _explained(error: Exception) -> Finding:
    if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
        error = error.__cause__
    found, todo = next((found, todo) for kinds, found, todo in EXPLANATIONS if isinstance(error, kinds))
    said = (str(error).splitlines() or [""])[0]
    return failed(found.format(said=said, kind=type(error).__name__), todo)
