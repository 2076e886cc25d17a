"""The real Redis and the real Postgres, called with the model's words: as workers and webs call them.

Each method is a call of `workers.Step`, and answers as `lanes` and `records` do.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
import redis
from psycopg.types.json import Jsonb

from onelane import keys
from onelane.lanes.lanes import Lanes
from onelane.lanes.scripts import text_of
from onelane.model import Lease
from onelane.outbox.records import STATES as REPLY_STATES
from onelane.turns.records import STATES as TURN_STATES
from tests.calls import Calls, Item, delivery
from tests.explore.records import Begun, Request, Settled, Turn
from tests.explore.settings import Setting
from tests.explore.state import IN, KINDS, NOBODY, OUT, fence_of
from tests.explore.steps import Step
from tests.renewing import renewed
from tests.rows import OneConnection

START_MS: Final = 1_790_000_000_000
TTL_MS: Final = 1_000
CHANNEL: Final = "explored"
LINES: Final = "SELECT id, turn_seq FROM messages WHERE user_id = %s AND direction = 'out'"


class Clock:
    """The time of all walks, in ms, by which leases run out; it only goes on."""

    def __init__(self) -> None:
        self.now = START_MS


@lru_cache(maxsize=1)
def _lanes(client: redis.Redis) -> tuple[Clock, dict[str, Lanes]]:
    """Make the lanes of all walks: they have a thread, for as long as a process lives."""
    clock = Clock()
    return clock, {kind: Lanes(client, kind, clock_ms=lambda: clock.now) for kind in KINDS}


class Servers:
    """The real ones, as the model has them."""

    def __init__(self, connection: psycopg.Connection[Any], client: redis.Redis, setting: Setting) -> None:
        self.setting = setting
        self.client = client
        self.clock, self.lanes = _lanes(client)
        self.database = OneConnection(connection)
        self.calls = Calls(self.database)
        self.senders = [uuid4().hex for _ in range(setting.users)]
        self.users: list[UUID | None] = [None] * setting.users
        self.ids: dict[tuple[int, str, int], UUID] = {}
        """Of messages and replies, by user, kind and number."""
        self.numbers: dict[str, int] = {}
        self.sessions: dict[int, str] = {}
        self.leases: dict[int, Lease] = {}
        self.tokens: dict[tuple[str, str], int] = {(kind, ""): NOBODY for kind in KINDS}
        self.fences = {0: 0}
        """What the model calls them."""
        self.requests_over: set[tuple[int, int, int]] = set()
        """Requests whose time is over: user, reply and attempt."""
        self.asked: Counter[tuple[int, str]] = Counter()
        """Lease calls of each slot: one that is made again has the same number."""
        self.names = [f"w{uuid4().hex}" for _ in range(2)]
        client.flushall()
        policy = {"channel": CHANNEL, "idle_timeout_s": 36_000, "escalation_timeout_s": 36_000}
        self.database.rows("SELECT publish_policy(%s)", (Jsonb({**policy, "batch_max": setting.batch_max}),))

    def does(self, step: Step) -> Any:
        """Make a step's call, and return its answer."""
        return getattr(self, step.call[0])(*step.call[1:])

    # what webs and the reconciler call

    def accept(self, nr: int, seq: int) -> int:
        answer = self._deliver(nr, seq)
        assert answer["outcome"] == "accepted"
        self.users[nr] = UUID(answer["user_id"])
        self._name(nr, IN, seq, answer["message_id"])
        return answer["seq"]

    def accept_again(self, nr: int, seq: int) -> bool:
        answer = self._deliver(nr, seq)
        assert answer["outcome"] == "duplicate"
        return answer["is_waiting"]

    def _deliver(self, nr: int, seq: int) -> Item:
        [answer] = self.calls.accept(delivery(self.senders[nr], f"{self.senders[nr]} {seq}", channel=CHANNEL))
        return answer

    def enqueue(self, nr: int, kind: str, ids: list[int]) -> tuple[int, ...]:
        lanes = self.lanes[kind]
        calls = lanes._enqueue_calls([(self._user(nr), self.ids[nr, kind, one]) for one in ids])
        answers = lanes.scripts.run_many([("enqueue", args) for _, args in calls])
        return tuple(one for one, answer in zip(ids, answers, strict=True) if answer == 1)

    def bring_back(self, nr: int, kind: str) -> bool:
        return self.lanes[kind].bring_back([self._user(nr)])[0]

    # what an operator does

    def pause_user(self, nr: int) -> bool:
        return self.database.rows("SELECT pause_user(%s) AS did", (self._user(nr),))[0].did

    def resume_user(self, nr: int) -> bool:
        return self.database.rows("SELECT resume_user(%s) AS did", (self._user(nr),))[0].did

    def tell_pause(self, nr: int) -> bool:
        return self.lanes[IN].pause(self._user(nr))

    def tell_resume(self, nr: int) -> bool:
        return self.lanes[IN].make_due(self._user(nr), unpause=True)

    # what both kinds of slots call

    def lease(self, nr: int, kind: str, worker: int, new: int, taken_over: bool) -> bool:
        """Lease, after the holder was heard or was not."""
        if beats := self.client.keys("beat:*"):
            self.client.delete(*beats)
        holder = self.client.hget(keys.lock(self._user(nr), kind), "worker")
        if holder and not taken_over:
            renewed(self.lanes[kind], [], TTL_MS / 1000, text_of(holder))
        self.asked[worker, kind] += 1
        [lease] = self._leases(worker, kind)
        assert lease.user_id == self._user(nr)
        self.leases[new], self.tokens[kind, lease.token], self.fences[lease.fence] = lease, new, fence_of(new)
        return lease.taken_over

    def lease_again(self, nr: int, kind: str, worker: int) -> bool:
        return bool(self._leases(worker, kind))

    def _leases(self, worker: int, kind: str) -> tuple[Lease, ...]:
        return self.lanes[kind].lease(self.names[worker], self.asked[worker, kind], 1, TTL_MS / 1000).leases

    def jobs(self, nr: int, kind: str) -> frozenset[int]:
        return frozenset(self.numbers[job] for job in self.lanes[kind].jobs(self._user(nr)))

    def states(self, nr: int, kind: str, jobs: frozenset[int]) -> tuple[frozenset[int], bool]:
        query, ids = TURN_STATES if kind == IN else REPLY_STATES, [self.ids[nr, kind, job] for job in jobs]
        rows = self.database.rows(query, {"user_id": self._user(nr), "ids": ids})
        done = frozenset(self.numbers[str(row.id)] for row in rows if row.state == "processed")
        return done, any(row.state == "received" for row in rows)

    def finish(
        self, nr: int, kind: str, lease: int, done: Iterable[int], has_more: bool, may_go_on: bool, pause: bool
    ) -> str:
        lanes, ids = self.lanes[kind], [self.ids[nr, kind, one] for one in done]
        return str(lanes.finish(self.leases[lease], ids, has_more=has_more, may_go_on=may_go_on, pause=pause))

    def park(self, nr: int, kind: str, lease: int, done: Iterable[int]) -> bool:
        return self.lanes[kind].park(self.leases[lease], 0, [self.ids[nr, kind, one] for one in done])

    # what they ask of Postgres

    def begin_turn(self, nr: int, lease: int, taken_over: bool) -> Begun:
        item = {"user_id": str(self._user(nr)), "fence": self.leases[lease].fence, "taken_over": taken_over}
        [answer] = self.calls.begin({**item, "token": self.leases[lease].token, "hint": self.sessions.get(nr)})
        return self._begun_turn(nr, answer)

    def settle_turn(self, nr: int, lease: int, turn: Turn, goes_on: bool) -> Settled:
        fence, session = self.leases[lease].fence, self.sessions[nr]
        whose = {"user_id": str(self._user(nr)), "fence": fence, "version": turn.version, "seqs": turn.seqs}
        came: Item = {"effects": {"replies": [{"text": "hello"}] if self.setting.answers else []}}
        if turn.fails:
            came = {"failure": {"error": "E", "attempts": turn.attempts, "attempts_max": 99, "poison": "skip"}}
        [answer] = self.calls.settle({**whose, "session_id": session, "goes_on": goes_on, **came})
        outbox = self._named(nr, answer["outbox"])
        following = answer["next"] and self._begun_turn(nr, answer["next"])
        return Settled(answer["outcome"], answer["has_more"], outbox, next=following)

    def begin_send(self, nr: int, lease: int) -> Begun:
        [answer] = self.calls.begin_sends(self._sender(nr, lease))
        return self._begun_send(nr, answer)

    def settle_send(self, nr: int, lease: int, request: Request, goes_on: bool) -> Settled:
        reply_id, is_over = (
            str(self.ids[nr, OUT, request.seq]),
            (nr, request.seq, request.attempt) in self.requests_over,
        )
        came: Item = {"outcome": request.fate, "provider_id": f"P{reply_id}" if request.fate == "accepted" else None}
        if request.fate == "not_now":
            came |= {"counts": False, "wait_s": 0, "scope": "user"}
        what = {"reply_id": reply_id, "attempt": request.attempt, "deadline_s": -5 if is_over else 1_000}
        [answer] = self.calls.settle_sends({**self._sender(nr, lease), **what, **came, "goes_on": goes_on})
        following = answer["next"] and self._begun_send(nr, answer["next"])
        return Settled(answer["outcome"], answer["has_more"], state=answer["state"], next=following)

    def _sender(self, nr: int, lease: int) -> Item:
        return {"user_id": str(self._user(nr)), "fence": self.leases[lease].fence, "token": self.leases[lease].token}

    def _begun_turn(self, nr: int, answer: Item) -> Begun:
        if answer["outcome"] != "turn":
            return Begun(answer["outcome"], outbox=self._named(nr, answer["outbox"]))
        turn = answer["turn"]
        self.sessions[nr] = turn["session"]["id"]
        seqs = tuple(message["seq"] for message in turn["messages"])
        return Begun("turn", Turn(seqs, turn["version"], turn["messages"][0]["attempts"]))

    def _begun_send(self, nr: int, answer: Item) -> Begun:
        if not (reply := answer.get("reply")):
            return Begun(answer["outcome"])
        if answer["outcome"] == "send":
            self.requests_over.discard((nr, reply["seq"], reply["attempt"]))
        return Begun(answer["outcome"], request=Request(reply["seq"], reply["attempt"]))

    # names

    def _user(self, nr: int) -> UUID:
        user = self.users[nr]
        assert user is not None
        return user

    def _name(self, nr: int, kind: str, seq: int, one: str) -> None:
        self.ids[nr, kind, seq], self.numbers[one] = UUID(one), seq

    def _named(self, nr: int, outbox: list[str]) -> tuple[int, ...]:
        """Read which replies these are; new ones have no number yet."""
        if any(one not in self.numbers for one in outbox):
            for row in self.database.rows(LINES, (self._user(nr),)):
                self._name(nr, OUT, row.turn_seq, str(row.id))
        return tuple(self.numbers[one] for one in outbox)
