"""Workers that hold overlapping leases of a few users all the time, over the SQL functions alone: no lock keeps order.

Their fences are new, equal or older; they lag between begin and settle; replies are lost, and the same is asked again
word for word; hints are stale. Operators redrive, end, escalate, hand back and pause meanwhile. A handler adds one to a
counter of the user and one of the session, and answers with both.

One thread plays a seed exactly; several share the users, and each plays its own seed.
"""

import random
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

from tests.calls import Item, delivery, failure, lease, settlement

CHANNEL = "demo"
HANDS = 8
"""Leases that one thread holds at once."""
ATTEMPTS_MAX = (1, 1, 2, 3)
"""One of these: many messages die, and are redriven."""
TURN_ENDS = frozenset({"committed", "already", "fenced", "stale", "later", "retry", "dead", "paused"})
SORRY = "sorry"
SILENT = "silent"

GUARD = """
CREATE FUNCTION an_older_lease_has_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'an older lease has written'; END $$;
CREATE TRIGGER fences_run_forward BEFORE UPDATE ON users FOR EACH ROW WHEN (new.fence < old.fence)
EXECUTE FUNCTION an_older_lease_has_written();
"""
"""No write of a turn after its successor has written: what the fence is for."""

WRONG: dict[str, str] = {
    "a lost or doubled update of a user": f"""
        SELECT u.id FROM users u
         WHERE coalesce((u.state ->> 'n')::int, 0) <>
               (SELECT count(*) FROM messages m WHERE m.user_id = u.id AND m.direction = 'out' AND m.text <> '{SORRY}')
    """,
    "a lost or doubled update of a session": f"""
        SELECT s.id FROM conversation_sessions s
         WHERE coalesce((s.state ->> 'n')::int, 0) <>
               (SELECT count(*) FROM messages m
                 WHERE m.session_id = s.id AND m.direction = 'out' AND m.text <> '{SORRY}')
    """,
    "a reply that answers with another's number": f"""
        SELECT user_id FROM (
            SELECT user_id, split_part(text, ' ', 2)::int AS n, row_number() OVER (
                       PARTITION BY user_id ORDER BY split_part(text, ' ', 2)::int) AS place
              FROM messages WHERE direction = 'out' AND text <> '{SORRY}') r WHERE n <> place
    """,
    "a message that was not answered exactly once": f"""
        SELECT m.id FROM messages m
         WHERE m.direction = 'in' AND (m.state = 'processed')::int <>
               (SELECT count(*) FROM messages r
                 WHERE r.user_id = m.user_id AND r.turn_seq = m.seq AND r.ordinal > 0 AND r.text <> '{SORRY}')
             + (SELECT count(*) FROM tool_calls t
                 WHERE t.session_id = m.session_id AND t.name = '{SILENT}' AND t.message_id = m.id)
    """,
    "a reply to another message": f"""
        SELECT id FROM messages
         WHERE direction = 'out' AND text <> '{SORRY}' AND split_part(text, ' ', 1) <> turn_seq::text
    """,
    "a turn out of order": """
        SELECT id FROM (
            SELECT id, seq, max(seq) OVER (PARTITION BY user_id ORDER BY processed_at
                                           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
              FROM messages WHERE direction = 'in' AND redriven_at IS NULL) m WHERE before > seq
    """,
    "a gap in an order": """
        SELECT u.id FROM users u
         WHERE u.last_seq <> (SELECT count(DISTINCT seq) FROM messages m WHERE m.user_id = u.id AND m.direction = 'in')
    """,
    "something that waits although all is done": """
        SELECT id FROM users WHERE waiting <> 0 OR next_seq <> last_seq + 1
        UNION ALL SELECT id FROM inbox
    """,
    "an anomaly of sessions": "SELECT kind || ': ' || detail FROM session_anomalies",
}


@dataclass
class Hand:
    """One lease: what it has begun, and what it is going to ask."""

    user_id: str = ""
    fence: int = 0
    begins: Item | None = None
    """Asked for until its answer is heard."""
    settles: Item | None = None
    turn: Item | None = None


@dataclass
class World:
    """What all threads share: the users, their fences, the time, and how many turns are to end."""

    turns: int
    users: list[str] = field(default_factory=list)
    fences: dict[str, Any] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    sessions: list[str] = field(default_factory=list)
    numbers: Any = field(default_factory=count)
    ended: Any = field(default_factory=count)
    is_over: bool = False
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    passed_s: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    guards: threading.Lock = field(default_factory=threading.Lock)

    @property
    def now(self) -> datetime:
        """The time at which messages come and commands are given. It only runs forward."""
        return self.began + timedelta(seconds=self.passed_s)

    def fence(self, user_id: str, chance: random.Random) -> int:
        """Give a lease's number: mostly a new one, sometimes the last once more, or an older one."""
        kind = chance.random()
        if kind < 0.45 or user_id not in self.newest:
            self.newest[user_id] = next(self.fences.setdefault(user_id, count(1)))
            return self.newest[user_id]
        return max(1, self.newest[user_id] - (0 if kind < 0.8 else chance.randrange(1, 4)))

    def object(self, trouble: str) -> None:
        """Note what must not be answered, and end the game."""
        self.troubles.append(trouble)
        self.is_over = True

    def note(self, outcome: str) -> None:
        """Count what became of a turn; the game is over when there were enough."""
        with self.guards:
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
            if outcome in TURN_ENDS and next(self.ended) >= self.turns:
                self.is_over = True


class Player:
    """One thread with its connection, its seed, and its leases."""

    def __init__(self, connection: psycopg.Connection[Any], world: World, seed: object) -> None:
        self._connection = connection
        self._world = world
        self._chance = random.Random(str(seed))
        self._hands = [Hand() for _ in range(HANDS)]
        self._acts: dict[Callable[[], object], int] = {
            self._work: 100,
            self._say: 18,
            self._redrive: 30,
            self._command("request_session_end(%(user)s, 'operator', NULL, NULL, %(now)s)"): 1,
            self._command("escalate_session(%(user)s, %(now)s)"): 1,
            self._command("hand_back_session(%(user)s)"): 2,
            self._command("pause_user(%(user)s)"): 1,
            self._command("resume_user(%(user)s)"): 3,
            self._command("sweep_sessions(100, 32, %(now)s)"): 1,
            self._command("get_or_create_session(%(user)s)"): 1,
        }

    def play(self) -> None:
        """Act at random until enough turns have ended."""
        while not self._world.is_over:
            [act] = self._chance.choices([*self._acts], [*self._acts.values()])
            act()

    def work_off(self) -> None:
        """Run what is left, one lease after another."""
        for user_id in self._world.users:
            self._ask("SELECT resume_user(%s)", user_id)
            fence = 1_000_000
            while (begun := self._call("begin_turns", [lease(user_id, fence)])[0])["outcome"] == "turn":
                self._call("settle_turns", [settlement(begun, fence, **_handle(begun["turn"]))])

    # people and operators

    def _say(self) -> None:
        """Let a few people write, at once; some are delivered twice."""
        self._world.passed_s += self._chance.choice([0.2, 1, 5, 30]) if self._chance.random() < 0.99 else 900
        items = []
        for _ in range(self._chance.randrange(1, 4)):
            user_id = self._chance.choice(self._world.users)
            number = next(self._world.numbers)
            items.append(delivery(user_id, f"m{number}", senders=[user_id], now=self._world.now.isoformat()))
        items += items[:1] if self._chance.random() < 0.1 else []
        # In a list nothing waits for a lock: what was skipped goes alone, and what follows it of the same user.
        for item, answer in zip(items, self._call("accept", items, waits=len(items) == 1), strict=True):
            if answer["outcome"] == "skipped":
                self._call("accept", [item])

    def _redrive(self) -> None:
        self._ask(
            "SELECT redrive_message(id, NULL, %s) FROM messages WHERE user_id = %s AND state = 'dead' LIMIT 1",
            *(self._world.now, self._chance.choice(self._world.users)),
        )

    def _command(self, call: str) -> Callable[[], object]:
        query = f"SELECT {call}"
        return lambda: self._connection.execute(
            query.encode(), {"user": self._chance.choice(self._world.users), "now": self._world.now}
        )

    # workers

    def _work(self) -> None:
        """Move one lease on, or several of a kind in one list."""
        hands = self._chance.sample(self._hands, self._chance.choice([1, 2, 4, 6]))
        for hand in hands:
            if hand.begins is None and hand.turn is None:
                self._lease(hand)
            elif hand.turn is not None and hand.settles is None:
                hand.settles = self._settlement(hand)
        begins = [hand for hand in hands if hand.turn is None and hand.begins]
        for hand, answer in zip(begins, self._heard("begin_turns", [hand.begins for hand in begins]), strict=True):
            if answer is not None:
                hand.begins = None
                self._begun(hand, answer)
        settles = [hand for hand in hands if hand.settles and hand not in begins]
        for hand, answer in zip(settles, self._heard("settle_turns", [hand.settles for hand in settles]), strict=True):
            if answer is not None:
                self._settled(hand, answer)

    def _lease(self, hand: Hand) -> None:
        chance = self._chance
        hand.user_id = chance.choice(self._world.users)
        hand.fence = self._world.fence(hand.user_id, chance)
        hint = chance.choice(self._world.sessions[-12:]) if self._world.sessions and chance.random() < 0.7 else None
        hand.begins = lease(hand.user_id, hand.fence, hint=hint, taken_over=chance.random() < 0.15)

    def _begun(self, hand: Hand, answer: Item) -> None:
        hand.turn = answer if answer["outcome"] == "turn" else None
        if hand.turn:
            self._world.sessions.append(answer["turn"]["session"]["id"])
        elif answer["outcome"] == "refused":
            self._world.object(f"begin: {answer}")

    def _settlement(self, hand: Hand) -> Item:
        """Decide what became of the handler."""
        turn, chance = hand.turn, self._chance
        assert turn is not None
        kind = chance.random()
        if kind < 0.25:
            poison = chance.choice(["skip", "skip", "apologise", "park"])
            attempts_max, apologies = chance.choice(ATTEMPTS_MAX), [{"text": SORRY}]
            return failure(turn, hand.fence, attempts_max=attempts_max, poison=poison, apologies=apologies)
        if kind < 0.3:
            laters = turn["turn"]["messages"][0]["laters"]
            later = {"laters": laters, "max_s": 3600, "asked_s": None, "reason": ""}
            return failure(turn, hand.fence, later=later)
        effects = _handle(turn["turn"])
        if kind < 0.32 and SILENT not in str(effects) and turn["hint"] != "unused":
            effects["end"] = "handler"
        elif kind < 0.34 and SILENT not in str(effects):
            effects["escalate"] = True
        return settlement(turn, hand.fence, goes_on=chance.random() < 0.5, **effects)

    def _settled(self, hand: Hand, answer: Item) -> None:
        self._world.note(answer["outcome"])
        if answer["outcome"] == "refused":
            self._world.object(f"settle: {answer}")
        hand.settles = hand.turn = None
        if answer.get("next"):
            self._begun(hand, answer["next"])

    def _heard(self, function: str, items: list[Any]) -> list[Item | None]:
        """Ask; an answer that is lost is asked for again, later and word for word. So is one that was skipped."""
        if not items:
            return []
        answers = self._call(function, items, waits=len(items) == 1)
        is_lost = self._chance.random() < 0.1
        return [None if is_lost or answer["outcome"] == "skipped" else answer for answer in answers]

    def _call(self, function: str, items: Iterable[Item], *, waits: bool = True) -> list[Item]:
        answers: list[Item] = self._ask(f"SELECT {function}(%s, %s)", Jsonb(list(items)), waits)[0]
        return answers

    def _ask(self, query: str, *params: object) -> Any:
        return self._connection.execute(query.encode(), params).fetchone()


def _handle(turn: Item) -> dict[str, Any]:
    """Count, and answer with the numbers; while a human has the session, only note that the message came."""
    seq = turn["messages"][0]["seq"]
    if turn["session"]["status"] == "escalated":
        return {"tool_calls": [{"name": SILENT, "output": seq}]}
    of_user, of_session = (turn[whose]["state"].get("n", 0) + 1 for whose in ("user", "session"))
    return {
        "replies": [{"text": f"{seq} {of_user} {of_session}"}],
        "user_state": {"n": of_user},
        "session_state": {"n": of_session},
    }


def play(url: str, *, seed: int, turns: int, threads: int, users: int) -> tuple[list[str], dict[str, int]]:
    """Play until `turns` turns have ended, work off the rest; return what is wrong, and the outcomes of turns."""
    world = World(turns)

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(url, autocommit=True, row_factory=namedtuple_row)

    with connect() as connection:
        connection.execute("TRUNCATE users, conversation_sessions, channel_policies, accepted_deliveries CASCADE")
        connection.execute("TRUNCATE inbox, messages, tool_calls")
        connection.execute("INSERT INTO channel_policies VALUES (%s, 300, NULL, NULL, 400, 200)", (CHANNEL,))
        for nr in range(users):
            name = f"{seed} {nr}"
            connection.execute("INSERT INTO users (channel, sender) VALUES (%s, %s)", (CHANNEL, name))
        connection.execute("INSERT INTO user_aliases SELECT channel, id::text, id FROM users")
        world.users = [str(row.id) for row in connection.execute("SELECT id FROM users ORDER BY sender").fetchall()]

        def thread(nr: int) -> None:
            with connect() as own:
                try:
                    Player(own, world, (seed, nr)).play()
                finally:
                    world.is_over = True

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(thread, range(threads)))
        Player(connection, world, seed).work_off()
        wrong = [
            f"{what}: {row[0]}"
            for what, query in WRONG.items()
            for row in connection.execute(query.encode()).fetchall()
        ]
    return world.troubles + wrong, world.outcomes
