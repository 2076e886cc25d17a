"""The model beside the real servers: each answer, and all that is there after each step, must be the same.

A walk goes one step after the other, each drawn from all that may happen. Time is the walk's own: leases run out as its
clock goes on, requests as it says. Left to the model are the network, the provider and what processes remember.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from random import Random
from typing import Any, Final
from uuid import uuid4

import psycopg
import redis

from onelane import keys
from onelane.postgres.connection import Row
from tests.explore import world
from tests.explore.servers import TTL_MS, Servers
from tests.explore.settings import Setting
from tests.explore.state import IN, KINDS, NOBODY, NONE, OUT, Lane, Place, Reply, User, Waiting
from tests.explore.steps import Step, told
from tests.renewing import renewed

Choose = Callable[[list[Step]], Step]

STEPS_MAX: Final = 60
FAULTS: Final = frozenset({"run_out", "die", "forget", "rewind", "over"})
CALM: Final = 0.7
"""How often a fault is drawn again: else walks would be over before anything was done."""
ROWS: Final = """
SELECT u.id, u.fence, u.version, u.last_seq, u.waiting, u.paused_at, coalesce(o.fence, 0) AS out_fence,
       (SELECT coalesce(json_agg(json_build_array(seq, attempts, coalesce(batch_last, 0)) ORDER BY seq), '[]')
          FROM inbox WHERE user_id = u.id) AS inbox,
       (SELECT coalesce(json_agg(seq ORDER BY processed_at, seq), '[]') FROM messages
         WHERE user_id = u.id AND direction = 'in') AS done,
       (SELECT coalesce(json_agg(json_build_array(
                   turn_seq, r.state, m.state, r.token, r.requests, r.ends_known, r.resent) ORDER BY turn_seq), '[]')
          FROM messages m LEFT JOIN outbox r USING (user_id, turn_seq, ordinal)
         WHERE m.user_id = u.id AND m.direction = 'out') AS replies
  FROM users u LEFT JOIN out_lanes o ON o.user_id = u.id
 WHERE u.id = ANY(%s)
"""


class Beside(Servers):
    """The real servers, with what happens to them, and what is there."""

    def run_out(self, nr: int, kind: str) -> None:
        """Let the clock go on until a lease has run out; the others are renewed meanwhile."""
        lanes = self._lanes()
        self.clock.now += TTL_MS * 6 // 10
        for (other, of), lane in lanes.items():
            if lane.is_live and (other, of) != (nr, kind):
                assert not renewed(self.lanes[of], [self.leases[lane.lock]], TTL_MS / 1000, "")
        self.clock.now += TTL_MS * 6 // 10

    def renew(self, leases: list[tuple[int, str, int]]) -> None:
        for _, kind, lease in leases:
            assert not renewed(self.lanes[kind], [self.leases[lease]], TTL_MS / 1000, "")

    def over(self, nr: int, seq: int, attempt: int) -> None:
        self.requests_over.add((nr, seq, attempt))

    def die(self, worker: int) -> None:
        self.names[worker] = f"w{uuid4().hex}"

    def forget(self) -> None:
        self.clock.now += 1
        self.client.flushall()

    def rewind(self, newest: int) -> None:
        """Come back empty, and with a fence counter that has not seen the newest lease."""
        *_, real = (real for real, fence in self.fences.items() if fence == newest)
        self.forget()
        self.client.set("fence", real - 1)

    def may(self, step: Step) -> bool:
        """Whether Redis would lease this lane: it takes the one that was due first."""
        if step.call[:1] != ("lease",):
            return True
        return self.client.zrange(keys.lanes(step.call[2]), 0, 0) == [str(self._user(step.call[1])).encode()]

    def does(self, step: Step) -> Any:
        """Make a step's call, and return its answer."""
        return getattr(self, step.call[0])(*step.call[1:])

    def seen(self) -> tuple[User, ...]:
        """Read all that is there, as the model has it."""
        rows = {row.id: row for row in self.database.rows(ROWS, ([user for user in self.users if user],))}
        lanes = self._lanes()
        return tuple(
            self._seen(nr, rows[user], lanes[nr, IN], lanes[nr, OUT]) if user else User()
            for nr, user in enumerate(self.users)
        )

    def _seen(self, nr: int, row: Row, turns: Lane, sends: Lane) -> User:
        assert (row.version, row.waiting) == (len(row.done), len(row.inbox))
        return User(
            said=row.last_seq,
            inbox=tuple(Waiting(*one) for one in row.inbox),
            done=tuple(row.done),
            fence=self.fences[row.fence],
            replies=tuple(self._reply(nr, *one) for one in row.replies),
            out_fence=self.fences[row.out_fence],
            is_paused=row.paused_at is not None,
            turns=turns,
            sends=sends,
        )

    def _reply(
        self, nr: int, seq: int, state: str | None, said: str, token: str, requests: int, ends: bool, resent: bool
    ) -> Reply:
        if state is None:
            return Reply(seq, "given up" if said == "unknown" else said)
        is_over = requests > 0 if state == "pending" else ends or (nr, seq, requests) in self.requests_over
        return Reply(seq, state, self.tokens[OUT, token] if state == "sending" else NOBODY, requests, is_over, resent)

    def _lanes(self) -> dict[tuple[int, str], Lane]:
        known = [(nr, kind) for nr, user in enumerate(self.users) if user for kind in KINDS]
        pipeline = self.client.pipeline(transaction=False)
        for nr, kind in known:
            user = self._user(nr)
            pipeline.zscore(keys.lanes(kind), str(user))
            pipeline.hmget(keys.lock(user, kind), "token", "until", "resumed")
            pipeline.lrange(keys.queue(user, kind), 0, -1)
        read = pipeline.execute()
        return {
            of: self._lane(of[1], *parts)
            for of, parts in zip(known, zip(read[::3], read[1::3], read[2::3], strict=True), strict=True)
        }

    def _lane(self, kind: str, score: float | None, lock: Sequence[bytes | None], jobs: list[bytes]) -> Lane:
        token, until, resumed = lock
        assert len(jobs) == len(set(jobs))
        return Lane(
            self._place(score),
            self.tokens[kind, (token or b"").decode()],
            int(until or 0) > self.clock.now,
            resumed is not None,
            frozenset(self.numbers[job.decode()] for job in jobs),
        )

    def _place(self, score: float | None) -> Place:
        if score is None:
            return Place.ABSENT
        if score == inf:
            return Place.PAUSED
        return Place.DUE if score <= self.clock.now else Place.LATER


def walk(connection: psycopg.Connection[Any], client: redis.Redis, setting: Setting, seed: int) -> list[Step]:
    """Go at random from the start."""
    return go(connection, client, setting, partial(_drawn, Random(seed)), f"walk {seed}")


def go(
    connection: psycopg.Connection[Any], client: redis.Redis, setting: Setting, choose: Choose, name: str
) -> list[Step]:
    """Go from the start; raise AssertionError where the servers do something else than the model."""
    state = setting.start()
    steps: list[Step] = []
    with connection.transaction(force_rollback=True):
        servers = Beside(connection, client, setting)
        while len(steps) < STEPS_MAX and (possible := [one for one in world.steps(state, setting) if servers.may(one)]):
            step = choose(possible)
            steps.append(step)
            state = step.after
            if step.call:
                _compare(servers.does(step), step.answer, name, steps)
                _compare(servers.seen(), tuple(map(_on_servers, state.users)), name, steps)
    return steps


def _drawn(random: Random, possible: list[Step]) -> Step:
    step = random.choice(possible)
    is_fault = step.call[:1] and step.call[0] in FAULTS
    return random.choice(possible) if is_fault and random.random() < CALM else step


def _on_servers(user: User) -> User:
    """Leave out what no server knows."""
    return user._replace(writer=0, promised=0, telling="", accepted=NONE, unanswered=NONE, flying=(), received=())


def _compare(real: object, model: object, name: str, steps: list[Step]) -> None:
    assert real == model, "\n".join([f"{name}:", *map(told, steps), f"real:  {real}", f"model: {model}"])
