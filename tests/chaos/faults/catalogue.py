"""Every fault that a run can have: whom it may strike, and for how long.

The functions are named in the history as they are here. A target is a dyno, a server or a proxy, with a process of it
where that matters: `web-1/head` (gunicorn's master) and `web-1/child`, `worker-1/head` (the supervisor),
`worker-1/process`, `worker-1/helper` (which renews leases), `workers/isolated` (a suspect message's child).

| fault | what happens |
|---|---|
| kill | SIGKILL. The platform starts the program again; a dead head's orphans live on while the fault lasts |
| freeze | SIGSTOP, then SIGCONT |
| deploy | a new release starts beside the old one, which then gets SIGTERM |
| lose | Redis is killed and comes back on the same port, empty |
| flush, pause | FLUSHALL, CLIENT PAUSE |
| lose-pooler | PgBouncer, through which a web and a worker go, is killed and started again |
| restart | an immediate shutdown of Postgres (SIGQUIT), then a start |
| terminate | pg_terminate_backend, of one connection of the service or of all |
| read-only | writes are answered with 25006: in all sessions, or for good in those made meanwhile |
| full | inserts are answered with 53100, all or some (simulated: `service/full_disk.py`) |
| lock-row | a transaction holds the row of a busy user |
| lock-table | a transaction holds the table of tool outputs: handlers that read some wait, and their commits |
| full-redis | Redis may hold one byte: what allocates is refused. Perhaps a worker has to start in that |
| refusing-redis | Redis forbids our scripts, or writing, or our keys |
| evicting-redis | Redis may hold less than it holds, and evicts by `allkeys-lru` |
| read-only-redis | Redis is the replica of a primary that is not there |
| slow-redis | a proxy makes every call to Redis take 80 to 250 ms longer |
| step-clock | Redis' clock is set back or ahead by up to an hour, and stays so |
| step-worker-clock | a worker's by up to four minutes |
| delay | a proxy holds every request up |
| cut | a proxy cuts all connections, some faults again and again |
| black-hole | a proxy keeps connections open, passes nothing, and cuts them when it is over |
| silence | the same, and nothing is ever cut: what went silent stays open, and dead |
| one-server | one worker's own way to one of its two servers: a black hole, silence, or a refusal |
| refuse | a proxy lets nobody in |
| drop | a proxy loses the answers to some requests of a kind, or the requests |
| api | the providers' APIs answer with errors, late, or not, break or refuse connections, or call back otherwise |
| block-loop | a handler of an async bot blocks the event loop that all its turns share, for seconds or for ever |
| hang-over-flush | handlers hang, in one slot or in all, and a FLUSHALL takes their leases |

The helper that is frozen must be replaced by its worker, and so must a worker whose loop is blocked for ever or whose
slots all hang: who stays is noted with the fault's end, and the run is red.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.faults import redis_moods
from tests.chaos.faults.clocks import step_redis, step_worker
from tests.chaos.faults.handlers import SHORT_S, WHOLE_S, block_loop, hang_over_flush
from tests.chaos.faults.network import (
    api_deaf,
    api_drops,
    api_errors,
    api_hangs,
    api_statuses,
    black_hole,
    cut,
    delay,
    drop_reply,
    drop_request,
    one_server,
    refuse,
    silence,
    slow,
)
from tests.chaos.faults.postgres import full, lock_row, lock_table, read_only
from tests.chaos.faults.processes import deploy, freeze, freeze_helper, kill
from tests.chaos.faults.servers import flush, lose, lose_pooler, pause, restart, terminate
from tests.chaos.faults.strike import Steps, Strike
from tests.chaos.service.stack import ASYNC_WORKER_NAMES, CLOCKED_WORKER_NAMES, FAKES, WEB_NAMES, WORKER_NAMES
from tests.pooler import find


@dataclass(frozen=True)
class Kind:
    """What the schedule has to know of a fault."""

    strike: Callable[[Strike], Steps]
    targets: tuple[str, ...]
    lasts_s: tuple[float, float] = (0.0, 0.0)
    is_rare: bool = False
    """Whether its target is seldom there: every round lies in wait for it, beside its other faults."""
    weight: int = 1
    """How often it comes while others come once."""

    @property
    def needs_process(self) -> bool:
        """Whether it can only begin while its target lives."""
        return self.is_of_bot or self.strike in {kill, freeze, freeze_helper}

    @property
    def is_of_bot(self) -> bool:
        """Whether a handler does it: such faults last long, and have a track of their own."""
        return self.strike in {block_loop, hang_over_flush}


PROXIES = ("redis-proxy", "postgres-proxy")
WEB_HEADS = tuple(f"{name}/head" for name in WEB_NAMES)
WEB_CHILDREN = tuple(f"{name}/child" for name in WEB_NAMES)
SUPERVISORS = tuple(f"{name}/head" for name in WORKER_NAMES)
WORKERS = tuple(f"{name}/process" for name in WORKER_NAMES)
ASYNC_WORKERS = tuple(f"{name}/process" for name in ASYNC_WORKER_NAMES)
WORKERS_WITH_THREADS = tuple(name for name in WORKERS if name not in ASYNC_WORKERS)
OWN_PROXIES = tuple(f"{name}/{server}" for name in WORKER_NAMES for server in ("postgres", "redis"))
CLOCKS = tuple(f"clocks/{name}" for name in CLOCKED_WORKER_NAMES)
HELPERS = tuple(f"{name}/helper" for name in WORKER_NAMES)

FAULTS: dict[str, Kind] = {
    "kill-web": Kind(kill, WEB_HEADS, (0.1, 2)),
    "kill-web-child": Kind(kill, WEB_CHILDREN),
    "kill-supervisor": Kind(kill, SUPERVISORS, (0.1, 3)),
    "kill-worker": Kind(kill, WORKERS),
    "kill-helper": Kind(kill, HELPERS),
    "kill-isolated": Kind(kill, ("workers/isolated",), is_rare=True),
    "kill-provider": Kind(kill, ("provider/head",)),
    "freeze-web": Kind(freeze, WEB_HEADS, (0.5, 4)),
    "freeze-web-child": Kind(freeze, WEB_CHILDREN, (0.5, 6)),
    "freeze-supervisor": Kind(freeze, SUPERVISORS, (0.5, 4)),
    "freeze-worker": Kind(freeze, WORKERS, (0.5, 8)),
    "freeze-helper": Kind(freeze_helper, HELPERS, (1, 7), weight=3),
    "freeze-provider": Kind(freeze, ("provider/head",), (0.5, 3)),
    "freeze-api": Kind(freeze, (f"{FAKES}/head",), (0.5, 4)),
    "freeze-redis": Kind(freeze, ("redis",), (0.5, 5)),
    "freeze-postgres": Kind(freeze, ("postgres",), (0.5, 5)),
    "freeze-backend": Kind(freeze, ("postgres/backend",), (0.5, 8)),
    "deploy-web": Kind(deploy, WEB_NAMES, (0, 4)),
    "deploy-worker": Kind(deploy, WORKER_NAMES, (0, 4)),
    "lose-redis": Kind(lose, ("redis",), (0, 3)),
    "flush-redis": Kind(flush, ("redis",)),
    "pause-redis": Kind(pause, ("redis",), (0.5, 3)),
    "lose-pooler": Kind(lose_pooler, ("pooler",), (0.1, 2)),
    "freeze-pooler": Kind(freeze, ("pooler",), (0.5, 5)),
    "restart-postgres": Kind(restart, ("postgres",), (0.2, 3)),
    "terminate-backends": Kind(terminate, ("postgres/one", "postgres/all")),
    "read-only": Kind(read_only, ("postgres/server", "postgres/sessions"), (1, 6), weight=3),
    "full": Kind(full, ("postgres/disk",), (1, 6), weight=3),
    "lock-row": Kind(lock_row, ("users/row",), (4, 12), weight=3),
    "lock-table": Kind(lock_table, ("tables/tool_calls",), (3, 7), weight=3),
    "full-redis": Kind(redis_moods.full, ("redis/now", "redis/at-start"), (1, 6), weight=3),
    "refusing-redis": Kind(redis_moods.refusing, ("redis/rights",), (1, 6), weight=3),
    "evicting-redis": Kind(redis_moods.evicting, ("redis/memory",), (1, 6), weight=3),
    "read-only-redis": Kind(redis_moods.read_only, ("redis/role",), (1, 6), weight=3),
    "slow-redis": Kind(slow, ("redis-proxy",), (2, 6), weight=3),
    "step-clock": Kind(step_redis, ("redis/clock",), weight=3),
    "step-worker-clock": Kind(step_worker, CLOCKS),
    "delay": Kind(delay, PROXIES, (1, 5)),
    "cut": Kind(cut, PROXIES, (0.1, 2)),
    "black-hole": Kind(black_hole, PROXIES, (2, 12)),
    "silence": Kind(silence, PROXIES, (1, 6), weight=3),
    "one-server": Kind(one_server, OWN_PROXIES, (2, 9), weight=3),
    "refuse": Kind(refuse, PROXIES, (0.5, 5)),
    "drop-reply": Kind(drop_reply, PROXIES, (1, 4)),
    "drop-request": Kind(drop_request, PROXIES, (1, 4)),
    "api-errors": Kind(api_errors, (f"{FAKES}/answers",), (1, 5)),
    "api-hangs": Kind(api_hangs, (f"{FAKES}/answers",), (1, 5)),
    "api-drops": Kind(api_drops, (f"{FAKES}/answers",), (1, 5)),
    "api-deaf": Kind(api_deaf, (f"{FAKES}/answers",), (0.2, 3)),
    "api-statuses": Kind(api_statuses, (f"{FAKES}/statuses",), (1, 5)),
    "block-loop": Kind(block_loop, ASYNC_WORKERS, (SHORT_S, WHOLE_S), weight=3),
    "hang-over-flush": Kind(hang_over_flush, WORKERS_WITH_THREADS, (SHORT_S, WHOLE_S), weight=3),
}
"""By name; the name is what histories and `--only` say."""


def possible() -> tuple[str, ...]:
    """Name the faults that can be had here: those of PgBouncer need one that is installed."""
    return tuple(name for name, kind in FAULTS.items() if find() or kind.targets != ("pooler",))
