"""Growth: what the hot statements cost in a large database, beside a small one; and under a snapshot that is held."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from typing import Final, NamedTuple
from uuid import UUID

import psycopg

from bench.growing import LINES_A_USER, Backend, fill, postgres_bytes, redis_bytes
from bench.measuring import Figures, Rounds, alternate
from bench.plan import Plan
from bench.result import Goal, Result
from bench.stack import Stack, fresh
from onelane import keys
from onelane.processes.reconciler import USERS_PER_PAGE, WAITING_USERS

NAME = "growth"
TITLE = "Growth: Postgres' CPU ms for one item of each hot statement, by the size of the history"
STATEMENTS: Final = ("accept", "begin", "settle", "send", "history", "waiting", "sweep", "backlog")
COLUMNS = ["database", "users", *STATEMENTS, "WAL kB", "after a checkpoint", "HOT %", "bytes", "Redis", "further"]
GROWTH_MAX = 1.5
LIST = 16
LISTS = 40
MESSAGES_EACH = 4
LOAD_MAX_S = 480.0
REDIS_USERS = 5_000
BACKLOG, BACKLOG_LIST, BACKLOG_READ = 20_000, 64, 100
READS = 9
NOTES = [
    "Lists of 16 items; users, with 25 turns of history each, are chosen at random; no session is known beforehand.",
    "history: 50 lines of a session. waiting: a page of the reconciler. sweep: a look for sessions that are over.",
    "send: mark a reply, note that it was accepted, and mark the next.",
    "backlog: commit and next begin of a user with 20,000 waiting messages, alone in its list.",
    "WAL: of one message from accept until its reply is sent.",
    "bytes: of a line of history in Postgres, with its indexes and all that belongs to it.",
    "Redis: bytes of a user's first message that waits; further: of each further one.",
    "HOT: updates that made no index entry, of users, sessions, messages and the outbox.",
]
HISTORY = (
    "SELECT turn_seq AS seq, direction, text, button, state, accepted_at FROM messages"
    " WHERE session_id = %s ORDER BY turn_seq DESC, ordinal DESC LIMIT 50"
)
UPDATES = (
    "SELECT sum(n_tup_upd)::bigint, sum(n_tup_hot_upd)::bigint FROM pg_stat_user_tables"
    " WHERE relname IN ('users', 'conversation_sessions', 'messages', 'outbox', 'out_lanes')"
)
WAL = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"


class Grown(NamedTuple):
    """A database of one size."""

    stack: Stack
    users: int
    bytes_a_line: float

    @property
    def name(self) -> str:
        """How large its history is."""
        return f"{self.users * LINES_A_USER:,} messages"


def measure(plan: Plan) -> Result:
    """Fill a small database and one as large as eight minutes allow, then measure both in turns."""
    small, large = plan.size((100_000, 10_000_000), (100_000, 300_000))
    with ExitStack() as closing:
        few, many = (
            closing.enter_context(_grown(plan, messages, plan.size(LOAD_MAX_S, 20.0))) for messages in (small, large)
        )
        runs: dict[str, Callable[[], Figures]] = {one.name: partial(_run, plan, one) for one in (few, many)}
        runs[f"{many.name}, a snapshot held"] = partial(_run_under_snapshot, plan, many)
        rounds = alternate(plan, runs)
    return Result.of(plan, NAME, TITLE, rounds, columns=COLUMNS, row=_row, notes=NOTES, goals=_goals(rounds))


@contextmanager
def _grown(plan: Plan, messages: int, seconds: float) -> Iterator[Grown]:
    with fresh() as stack:
        plan.report(f"  writing a history of {messages:,} messages")
        users = fill(stack, messages, seconds)
        yield Grown(stack, users, postgres_bytes(stack) / (users * LINES_A_USER))


def _run_under_snapshot(plan: Plan, grown: Grown) -> Figures:
    """Measure while an old transaction keeps every dead row from being removed, after some minutes of traffic."""
    with psycopg.connect(grown.stack.postgres.url) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM channel_policies")
        backend = Backend(grown.stack, grown.users)
        people, ends = backend.people(LIST), time.monotonic() + plan.size(60.0, 2.0)
        while time.monotonic() < ends:
            _talk(backend, people)
        backend.close()
        return _run(plan, grown)


def _run(plan: Plan, grown: Grown) -> Figures:
    backend, lists = Backend(grown.stack, grown.users), plan.size(LISTS, 4)
    try:
        _talk(backend, backend.people(LIST))  # it makes its plans
        updates, hot = _updates(backend)
        warm = _turns(backend, lists)
        more_updates, more_hot = _updates(backend)
        found = {**warm, **_reads(backend), "backlog": _backlog(backend, plan.size(BACKLOG, 500))}
        backend.connection.execute("CHECKPOINT")
        cold = _turns(backend, lists)
    finally:
        backend.close()
    hot_share = 100 * (more_hot - hot) / max(1, more_updates - updates)
    first, further = redis_bytes(grown.stack, plan.size(REDIS_USERS, 200))
    sizes = {"bytes": grown.bytes_a_line, "redis_first": first, "redis_further": further}
    return {"users": grown.users, **found, "wal_cold_kb": cold["wal_kb"], "hot": hot_share, **sizes}


def _turns(backend: Backend, lists: int) -> Figures:
    wal, cpu = _wal(backend), {"accept": 0.0, "begin": 0.0, "settle": 0.0, "send": 0.0}
    messages = MESSAGES_EACH * LIST * lists
    for _ in range(lists):
        for name, ms in _talk(backend, backend.people(LIST)).items():
            cpu[name] += ms
    begun = LIST * lists
    return {
        "accept": cpu["accept"] / messages,
        "begin": cpu["begin"] / begun,
        "settle": cpu["settle"] / messages,
        "send": cpu["send"] / messages,
        "wal_kb": (_wal(backend) - wal) / messages / 1024,
    }


def _talk(backend: Backend, people: list[str]) -> dict[str, float]:
    """Let people write some messages each, and answer them; return the CPU ms of each statement."""
    accepts = [backend.accept(people) for _ in range(MESSAGES_EACH)]
    users = [answer["user_id"] for answer in accepts[0].answers]
    fence = time.time_ns() // 1_000
    begun = backend.begin(users, fence)
    settle_ms, turns = 0.0, [answer["turn"] for answer in begun.answers]
    while turns:
        settled = backend.settle(turns, fence)
        settle_ms += settled.cpu_ms
        turns = [answer["next"]["turn"] for answer in settled.answers if answer["next"]]
    return {
        "accept": sum(one.cpu_ms for one in accepts),
        "begin": begun.cpu_ms,
        "settle": settle_ms,
        "send": _send(backend, users, fence),
    }


def _send(backend: Backend, users: list[str], fence: int) -> float:
    """Send all replies of users who have equally many; return the CPU ms."""
    sends = backend.begin_sends(users, fence)
    spent, begun = sends.cpu_ms, sends.answers
    while begun:
        settled = backend.settle_sends(begun, fence)
        spent += settled.cpu_ms
        begun = [answer["next"] for answer in settled.answers if answer["next"]["outcome"] == "send"]
    return spent


def _reads(backend: Backend) -> Figures:
    """Read what is read again and again; the median CPU ms of some times."""
    user = backend.spent("SELECT id FROM users OFFSET 100 LIMIT 1").answers[0][0]
    session = backend.spent("SELECT id FROM conversation_sessions WHERE user_id = %s LIMIT 1", user).answers[0][0]
    waiting = WAITING_USERS[keys.IN] % {"after": f"'{UUID(int=0)}'", "most": USERS_PER_PAGE}
    reads = {
        "history": lambda: backend.spent(HISTORY, session),
        "waiting": lambda: backend.spent(waiting),
        "sweep": lambda: backend.spent("SELECT * FROM sweep_sessions(500, 32)"),
    }
    return {name: median(read().cpu_ms for _ in range(READS)) for name, read in reads.items()}


def _backlog(backend: Backend, waiting: int) -> float:
    """Let one user write very much, then commit some of it, message by message; return the CPU ms of one."""
    [person] = backend.people(1)
    for _ in range(waiting // BACKLOG_LIST):
        backend.accept(BACKLOG_LIST * [person])
    [[user]] = backend.spent("SELECT user_id FROM user_aliases WHERE alias = %s", person).answers
    fence, spent = time.time_ns() // 1_000, []
    turn = backend.begin([str(user)], fence).answers[0]["turn"]
    for _ in range(min(waiting // 2, BACKLOG_READ)):
        settled = backend.settle([turn], fence)
        spent.append(settled.cpu_ms)
        turn = settled.answers[0]["next"]["turn"]
    backend.connection.execute("DELETE FROM inbox WHERE user_id = %s", (user,))
    backend.connection.execute("UPDATE users SET waiting = 0, next_seq = last_seq + 1 WHERE id = %s", (user,))
    return median(spent)


def _wal(backend: Backend) -> float:
    return float(backend.spent(WAL).answers[0][0])


def _updates(backend: Backend) -> tuple[int, int]:
    """Count updates so far, and those that were HOT."""
    backend.connection.execute("SELECT pg_stat_force_next_flush()")
    updates, hot = backend.spent(UPDATES).answers[0]
    return updates, hot


def _goals(rounds: Rounds) -> list[Goal]:
    small, large, held = rounds.found
    return [
        Goal.at_most(f"{name}, {other} ÷ {small}", GROWTH_MAX, rounds.ratio(other, small, name))
        for other in (large, held)
        for name in STATEMENTS
    ]


def _row(rounds: Rounds, name: str) -> list[str]:
    return [
        name,
        f"{rounds.found[name][0]['users']:,}",
        *(f"{rounds.median(name, statement):.3f}" for statement in STATEMENTS),
        *(f"{rounds.median(name, figure):.1f}" for figure in ("wal_kb", "wal_cold_kb", "hot")),
        *(f"{rounds.median(name, figure):.0f}" for figure in ("bytes", "redis_first", "redis_further")),
    ]
