"""Lanes: the one sorted set that says who has work and who is on it, through the scripts in `lua/`."""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple
from uuid import UUID

import redis

from onelane import keys
from onelane.errors import LanesDenied, describe
from onelane.lanes import jobs
from onelane.lanes.arrivals import Arrival
from onelane.lanes.clock import LanesClock, note_step
from onelane.lanes.gathering import waiting
from onelane.lanes.leased import Leased, leased
from onelane.lanes.marks import Marks
from onelane.lanes.refusals import A_CLUSTER
from onelane.lanes.releases import BURIED_MAX, Releases, ms_of
from onelane.lanes.roster import Roster
from onelane.lanes.scripts import SCRIPTS, Owner, Scripts, text_of
from onelane.model import uuid_or_none
from onelane.telemetry.log import event

BATCH_TTL_S = 600
"""How long Redis remembers which batch of numbers a process sent last."""
MANY_MAX = 500
"""Scripts in one round trip."""
NO_ROOM = -1
"""What enqueue answers when Redis is full: the lane is due without the job, or is left to the reconciler."""
SEQ = re.compile(r"\d{1,18}", re.ASCII)
ERASED_MAX = 1_000
"""Jobs removed in one script."""
REQUEUED_MAX = 50
"""Lanes searched in one script: Redis does nothing else meanwhile."""


class Due(NamedTuple):
    """Lanes that wait for a worker."""

    workers: int
    """How many work lanes of this kind."""
    users: list[UUID]
    """Whose lanes are due, the longest first."""


class Lanes(Releases):
    """The scripts as methods, for one kind of lane. `clock_ms` is for tests; otherwise Redis' own clock counts."""

    def __init__(
        self,
        client: redis.Redis,
        kind: str = keys.IN,
        *,
        owner: Owner | None = None,
        clock_ms: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(client, kind, Scripts(client, SCRIPTS, kind, owner), clock_ms)
        self.marks = Marks(self.scripts, kind)
        self.roster = Roster(self.scripts, self._now)
        self._clock = LanesClock()

    def enqueue(self, user_id: UUID, message_id: UUID) -> bool:
        """Put a message's or reply's job on its lane and make the lane due; return whether the job is new."""
        [(_, args)] = self._enqueue_calls([(user_id, message_id)])
        return bool(self.scripts.run("enqueue", *args) == 1)

    def enqueue_soon(self, user_id: UUID, ids: Sequence[UUID]) -> list[Future[bool]]:
        """Do the same for several of one user, in their order; never waits."""
        calls = self._enqueue_calls([(user_id, one) for one in ids]) if ids else []
        return [self.scripts.submit(lambda answer: answer == 1, "enqueue", *args) for _, args in calls]

    def enqueue_many(self, messages: Sequence[Arrival | tuple[UUID, UUID]]) -> None:
        """Enqueue arrivals or (user, message) pairs, MANY_MAX in one round trip; log it if a full Redis takes none."""
        answers = self._run_each("enqueue", self._enqueue_calls(messages))
        if (left_out := answers.count(NO_ROOM)) > 0:
            event("redis_full", messages=left_out)

    def _enqueue_calls(self, messages: Sequence[Arrival | tuple[UUID, UUID]]) -> list[tuple[UUID, Sequence[Any]]]:
        now, fields = self._now(), json.dumps(jobs.OF_ALL)
        arrivals = [Arrival(*message) for message in messages]
        items = [one.item(jobs.own_fields(self.kind, one.message_id)) for one in arrivals]
        return [(one.user_id, (now, fields, item)) for one, item in zip(arrivals, items, strict=True)]

    def bring_back(self, users: Sequence[UUID]) -> list[bool]:
        """Add lanes, without jobs, for users who have something waiting; False: a full Redis left this one out."""
        answers = self._run_each("bring_back", [(user, (self._now(), {"user": str(user)})) for user in users])
        return [answer != 0 for answer in answers]

    def _run_each(self, script: str, calls: Sequence[tuple[UUID, Sequence[Any]]]) -> list[Any]:
        """Run a script for many users. A lane that fails is reported, answers None, and keeps none from its place."""
        answers: list[Any] = []
        for start in range(0, len(calls), MANY_MAX):
            batch = calls[start : start + MANY_MAX]
            for (user_id, _), answer in zip(
                batch, self.scripts.run_each([(script, args) for _, args in batch]), strict=True
            ):
                if isinstance(answer, Exception):
                    event("lane_failed", user_id=user_id, failure=describe(answer))
                answers.append(None if isinstance(answer, Exception) else answer)
        return answers

    def lease(self, worker: str, call: int, slots: int, ttl_s: float) -> Leased:
        """Lease up to `slots` due lanes for `ttl_s`; the same `call` number gets the same answer again."""
        args = (self._now(), worker, call, slots, ms_of(ttl_s), self._clock.expected())
        answer = leased(self.scripts.run("lease", *args), self.kind)
        self._clock.note(answer.now_ms)
        note_step(answer.stepped_ms)
        return answer

    def newer(self, worker: str) -> dict[UUID, int]:
        """Return, once, the newest message's number of each user who wrote while this worker runs his turn."""
        found = [text_of(part) for part in self.scripts.run("newer", worker)]
        pairs = zip(map(uuid_or_none, found[::2]), found[1::2], strict=True)
        return {user: int(seq) for user, seq in pairs if user and SEQ.fullmatch(seq)}  # somebody else may write there

    def make_due(self, user_id: UUID, *, unpause: bool = False) -> bool:
        """Make a lane due now unless it is leased, or paused and not to be unpaused."""
        return bool(self.scripts.run("due", self._now(), user_id, int(unpause)))

    def make_all_due(self, users: Sequence[UUID]) -> None:
        """Make lanes due as `make_due` does, MANY_MAX in one round trip."""
        self._run_each("due", [(user, (self._now(), user, 0)) for user in users])

    def longest_due(self, most: int) -> Due:
        """Look which lanes are due."""
        return _due(self.scripts.run("longest_due", self._now(), most))

    def postpone(self, pauses_s: Mapping[UUID, float]) -> list[bool]:
        """Let each user's lane wait for so long, if it is due and nobody has it; answer whether it waits now."""
        now = self._now()
        calls = [(user, (now, {"user": str(user), "delay_ms": ms_of(s)})) for user, s in pauses_s.items()]
        return [bool(answer) for answer in self._run_each("postpone", calls)]

    def pause(self, user_id: UUID) -> bool:
        """Take a lane out of the due order; return whether it had work or a holder."""
        return bool(self.scripts.run("pause", user_id))

    def hold(self, user_id: UUID, token: str, ttl_s: float) -> bool:
        """Keep workers from a lane for an operator's act; False while one has it, which then leaves it for a moment."""
        return bool(self.scripts.run("hold", self._now(), user_id, token, ms_of(ttl_s)))

    def requeued(self, users: Sequence[UUID]) -> list[tuple[UUID, str]]:
        """Find (user, job id) of dead messages that somebody put back on their lane with RQ's own tools."""
        found: list[str] = []
        for start in range(0, len(users), REQUEUED_MAX):
            found += [text_of(part) for part in self.scripts.run("requeued", *users[start : start + REQUEUED_MAX])]
        return [(UUID(user), job) for user, job in zip(found[::2], found[1::2], strict=True)]

    def scores(self, users: Sequence[UUID]) -> list[float | None]:
        """Return when each user's lane is due, in ms; inf while paused, None without a lane."""
        if not users:
            return []
        key, members = keys.lanes(self.kind), [str(user) for user in users]
        scores: list[float | None] = self.scripts.ask_ours(key, lambda: self.client.zmscore(key, members))
        return scores

    def buried_users(self) -> list[UUID]:
        """Return users whose dead messages Redis keeps, in an order that is another each time."""
        key = keys.buried(self.kind)
        members = self.scripts.ask_ours(key, lambda: self.client.zrandmember(key, 2 * BURIED_MAX))
        users = {user for member in members if (user := uuid_or_none(text_of(member).partition(" ")[0]))}
        return random.sample(sorted(users), len(users))

    def discard(self, user_id: UUID, job: UUID | str) -> None:
        """Take a job off a lane for which Postgres has no use."""
        self.scripts.run("discard", user_id, job)

    def erase(self, user_id: UUID) -> None:
        """Remove a user's lane, with all that Redis keeps of the user, whoever holds it."""
        while self.scripts.run("erase", user_id, ERASED_MAX):
            pass

    def forget_session(self, user_id: UUID) -> None:
        """Delete the cached session id."""
        self.scripts.run("forget_session", user_id)

    def pass_wake_on_soon(self) -> Future[Any]:
        """Wake another worker in our place."""
        return self.scripts.submit(bool, "wake")

    pass_wake_on = waiting(pass_wake_on_soon)

    def probe(self) -> None:
        """Raise LanesUnavailable unless Redis does all that the scripts ask of it, on one server."""
        if self.scripts.setting("cluster", "cluster_enabled") == 1:
            raise LanesDenied(f"Redis {A_CLUSTER}")
        self.scripts.run("probe")

    def check_owner(self) -> None:
        """Raise LanesForeign when these are the lanes of another database; those of a new Redis become ours."""
        self.scripts.run("owner")

    def eviction_policy(self) -> str | None:
        """Read which keys Redis forgets when it is full; None where the host does not allow to ask."""
        policy: str | None = self.scripts.setting("memory", "maxmemory_policy", "maxmemory-policy")
        return policy

    def evicting_policy(self) -> str | None:
        """Name the policy by which Redis evicts keys; None when it keeps them, or its host hides the policy."""
        policy = self.eviction_policy()
        return None if policy == "noeviction" else policy

    def add_numbers(self, process: str, number: int, batch: dict[str, int]) -> None:
        """Add batch `number` of a process's counts to those of all processes, once."""
        self.scripts.run("count", process, number, BATCH_TTL_S * 1000, *jobs.flat(batch))


def _due(answer: tuple[int, Sequence[bytes | str]]) -> Due:
    """Read what longest_due.lua answers. What is no user was written by somebody else."""
    workers, members = answer
    return Due(workers, [user for member in members if (user := uuid_or_none(text_of(member)))])
