"""Whom a fault reaches: a process, all of one worker or web, or everybody who uses a server.

What a fault does not reach it does not excuse.
"""

from collections.abc import Callable

from tests.chaos.checker.evidence import Evidence
from tests.chaos.checker.records import Fault
from tests.chaos.checker.spans import Spans

Reaches = Callable[[Fault], bool]
FORGETS = frozenset({"hang-over-flush", "step-clock"})
"""Faults in which Redis forgets all leases, or ends them, whatever their target is."""
OF_POSTGRES = frozenset({"postgres", "postgres-proxy", "pooler"})
SLOW = "slow-redis"
"""Calls take longer than usual by less than anybody waits for."""
AFTERMATH_S = 2.0
"""How long after a fault everything may take to go on. What a lost lease takes besides is a lease's life."""
AWAY_S = 5.0
"""The same of Postgres: who has found it away asks again after a pause, and has to connect."""
SILENT_S = 8.0
"""Who asked on a connection that went silent, just before all was well, gives it up after 6 s, and has to connect."""
SILENT_POOL_S = 20.0
"""A pooler finds out about connections that went silent as its clients wait for them in vain, one after the other."""


def place_of(fault: Fault) -> str:
    """Name the process, server or proxy that is struck; of a clock, whose it is."""
    place, _, part = fault.target.partition("/")
    return part if place == "clocks" else place


def is_of_redis(fault: Fault) -> bool:
    """Tell whether a fault keeps all from Redis, or Redis from what it knew."""
    return fault.name != SLOW and (place_of(fault) in {"redis", "redis-proxy"} or fault.name in FORGETS)


def is_of_postgres(fault: Fault) -> bool:
    """Tell whether a fault reaches all who use Postgres, or one of their connections, whosever it is."""
    return place_of(fault) in OF_POSTGRES


def is_of_api(fault: Fault) -> bool:
    """Tell whether a fault reaches the providers' APIs."""
    return place_of(fault) == "providers-fakes"


def of_process(evidence: Evidence, pid: int) -> Reaches:
    """Tell whether a fault reaches this process of a worker, or its supervisor, helper, ways to servers, or clock."""
    dyno = evidence.dynos.get(pid)
    return lambda fault: pid in fault.pids or (dyno is not None and place_of(fault) == dyno)


def struck(evidence: Evidence, *reaches: Reaches, after_s: float = AFTERMATH_S) -> Spans:
    """Tell when faults lasted that reach whom one of these names, and for how long after that they may be felt.

    One that lost nothing, of what it was to lose, reaches nobody.
    """
    faults = (one for one in evidence.faults if any(reach(one) for reach in reaches))
    return Spans(_lasted(one) for one in faults if not (one.is_missed and one.detail)).widened(after_s=after_s)


def redis_lost(evidence: Evidence) -> Spans:
    """Tell when leases and lanes may have been lost with a fault of Redis, or nobody could renew them."""
    return struck_redis(evidence).widened(after_s=evidence.setup.ttl_s + AFTERMATH_S)


def postgres_away(evidence: Evidence) -> Spans:
    """Tell when Postgres may have been away for somebody."""
    return struck(evidence, is_of_postgres, after_s=AWAY_S).joined(_silences(evidence).widened(after_s=SILENT_S))


def pool_silent(evidence: Evidence, place: str | None) -> Spans:
    """Tell when a web or worker may have been given connections to Postgres by its pooler that had gone silent."""
    if place not in evidence.setup.pooled:
        return Spans()
    return _silences(evidence).widened(after_s=SILENT_POOL_S)


def struck_redis(evidence: Evidence, is_meant: Reaches = lambda _fault: True) -> Spans:
    """Tell when these of the faults of Redis lasted."""
    faults = (
        one for one in evidence.faults if is_of_redis(one) and is_meant(one) and not (one.is_missed and one.detail)
    )
    return Spans(span for span in map(_flushed, faults) if span)


def _silences(evidence: Evidence) -> Spans:
    """Tell when connections to Postgres went silent, and stayed so."""
    return Spans(_lasted(one) for one in evidence.faults if one.name == "silence" and place_of(one) == "postgres-proxy")


def _lasted(fault: Fault) -> tuple[float, float]:
    return fault.at, fault.until


def _flushed(fault: Fault) -> tuple[float, float] | None:
    """Tell when a fault struck Redis: one that strikes handlers first has a moment for that, or has missed it."""
    if fault.name != "hang-over-flush":
        return _lasted(fault)
    return None if fault.flushed_at is None else (fault.flushed_at, fault.flushed_at)
