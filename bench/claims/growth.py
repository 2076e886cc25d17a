"""Growth: what the hot statements cost in a large database, beside a small one; and under a snapshot that is held."""

import time
from collections.abc import Callable, Iterator, Sequence
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
COLUMNS = [
    "database",
    "users",
    *STATEMENTS,
    "of ten",
    "WAL kB",
    "after a checkpoint",
    "HOT %",
    "bytes",
    "Redis",
    "further",
]
GROWTH_MAX = 1.5
LIST = 16
LISTS = 40
MESSAGES_EACH = 4
LOAD_MAX_S = 480.0
REDIS_USERS = 5_000
BACKLOG, BACKLOG_LIST, BACKLOG_READ = 20_000, 64, 100
TEN = 10
WAITING = 500
"""Users in the inbox while it is read."""
READS = 9
NOTES = [
    "Lists of 16 items; users, with 25 turns of history each, are chosen at random; no session is known beforehand.",
    "history: 50 lines of a session. waiting: a page of the reconciler. sweep: a look for sessions that are over; both",
    "while 500 users wait.",
    "send: mark a reply, note that it was accepted, and mark the next.",
    "backlog: commit and next begin of a user with 20,000 waiting messages, alone in its list; of ten: with ten.",
    "With a snapshot held: of the users who wrote while it was held.",
    "WAL: of one message from accept until its reply is sent.",
    "bytes: of a line of history in Postgres, with its indexes and all that belongs to it.",
    "Redis: bytes of a user's first message that waits; further: of each further one.",
    "HOT: updates that made no index entry, of users, sessions, messages and the outbox.",
]
HISTORY = (
    "SELECT turn_seq AS seq, direction, text, button, state, accepted_at FROM messages"
    " WHERE session_id = %s ORDER BY turn_seq DESC, ordinal DESC LIMIT 50"
)


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
    goals = _goals(rounds, large, is_large=many.users * LINES_A_USER >= large)
    return Result.of(plan, NAME, TITLE, rounds, columns=COLUMNS, row=_row, notes=NOTES, goals=goals)


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
        backend = Backend(grown.stack, range(grown.users))
        people, ends = backend.people(LIST), time.monotonic() + plan.size(60.0, 2.0)
        while time.monotonic() < ends:
            _talk(backend, people)
        backend.close()
        return _run(plan, grown, people)


def _run(plan: Plan, grown: Grown, pool: Sequence[object] = ()) -> Figures:
    """Measure users of the pool, or any."""
    backend, lists = Backend(grown.stack, pool or range(grown.users)), plan.size(LISTS, 4)
    try:
        _talk(backend, backend.people(LIST))  # it makes its plans
        updates, hot = backend.updates()
        warm = _turns(backend, lists)
        more_updates, more_hot = backend.updates()
        found = {**warm, **_reads(backend, grown.users), "of_ten": _backlog(backend, TEN, LIST)}
        found["backlog"] = _backlog(backend, plan.size(BACKLOG, 500))
        backend.connection.execute("CHECKPOINT")
        cold = _turns(backend, lists)
    finally:
        backend.close()
    hot_share = 100 * (more_hot - hot) / max(1, more_updates - updates)
    first, further = redis_bytes(grown.stack, plan.size(REDIS_USERS, 200))
    sizes = {"bytes": grown.bytes_a_line, "redis_first": first, "redis_further": further}
    return {"users": grown.users, **found, "wal_cold_kb": cold["wal_kb"], "hot": hot_share, **sizes}


def _turns(backend: Backend, lists: int) -> Figures:
    wal, cpu = backend.wal(), {"accept": 0.0, "begin": 0.0, "settle": 0.0, "send": 0.0}
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
        "wal_kb": (backend.wal() - wal) / messages / 1000,
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


def _reads(backend: Backend, users: int) -> Figures:
    """Read what is read again and again while some users wait; the median CPU ms of some times."""
    backend.accept([str(number) for number in range(0, users, users // WAITING)])
    user = backend.spent("SELECT id FROM users OFFSET 100 LIMIT 1").answers[0][0]
    session = backend.spent("SELECT id FROM conversation_sessions WHERE user_id = %s LIMIT 1", user).answers[0][0]
    waiting = WAITING_USERS[keys.IN] % {"after": f"'{UUID(int=0)}'", "most": USERS_PER_PAGE}
    reads = {
        "history": lambda: backend.spent(HISTORY, session),
        "waiting": lambda: backend.spent(waiting),
        "sweep": lambda: backend.spent("SELECT * FROM sweep_sessions(500, 32)"),
    }
    found = {name: median(read().cpu_ms for _ in range(READS)) for name, read in reads.items()}
    backend.forget_waiting()
    return found


def _backlog(backend: Backend, waiting: int, users: int = 1) -> float:
    """Let users write much, one after the other, and commit some of it message by message; return the CPU ms of one."""
    spent: list[float] = []
    for person in backend.people(users):
        for begun in range(0, waiting, BACKLOG_LIST):
            accepted = backend.accept(min(BACKLOG_LIST, waiting - begun) * [person]).answers
        user, fence = accepted[0]["user_id"], time.time_ns() // 1_000
        turn = backend.begin([user], fence).answers[0]["turn"]
        for _ in range(min(waiting // 2, BACKLOG_READ)):
            settled = backend.settle([turn], fence)
            spent.append(settled.cpu_ms)
            turn = settled.answers[0]["next"]["turn"]
        _send(backend, [user], fence)
        backend.forget_waiting()
    return median(spent)


def _goals(rounds: Rounds, large: int, *, is_large: bool) -> list[Goal]:
    """Require that nothing grows with the history, which was written as far as time allowed, nor with a backlog."""
    small, many, held = rounds.found
    wanted = {f"{large:,} messages": many, f"{large:,} messages, a snapshot held": held}
    grown = [
        Goal.at_most(f"{name}, {what} ÷ {small}", GROWTH_MAX, rounds.ratios(other, small, name) if is_large else None)
        for what, other in wanted.items()
        for name in STATEMENTS
    ]
    waited = [
        Goal.at_most(f"a backlog ÷ one of ten, {name}", GROWTH_MAX, [one["backlog"] / one["of_ten"] for one in found])
        for name, found in rounds.found.items()
    ]
    return grown + waited


def _row(rounds: Rounds, name: str) -> list[str]:
    return [
        name,
        f"{rounds.found[name][0]['users']:,}",
        *(f"{rounds.median(name, statement):.3f}" for statement in (*STATEMENTS, "of_ten")),
        *(f"{rounds.median(name, figure):.1f}" for figure in ("wal_kb", "wal_cold_kb", "hot")),
        *(f"{rounds.median(name, figure):.0f}" for figure in ("bytes", "redis_first", "redis_further")),
    ]
