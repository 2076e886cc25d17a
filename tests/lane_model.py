"""The lanes as a few lines of Python, beside the scripts that they describe."""

from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import redis
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from onelane import keys
from onelane.lanes.arrivals import Arrival, Wait
from onelane.lanes.lanes import Lanes
from onelane.lanes.scripts import SCRIPTS, Scripts
from onelane.model import Lease

START_MS = 1_790_000_000_000
TTL_MS = 1_000
ALLOWANCE_MS = 60_000
USERS = 2
WORKERS = 2
LASTING = ("instance", "lanes:in", "wake:in", "fence", "buried:in", "rq:queues", "rq:queue:", "rq:job:", "rq:failed:")
"""What the catalogue lets live without a TTL; rq:job only while its message waits."""
CHANGE_THEIR_ANSWER = {"enqueue", "finish", "park", "postpone"}
"""The second enqueue finds the job, finish or park no lease, postpone nothing due; none of them changes anything."""

DUMP = """
local readers = {
  string = function(key) return { redis.call('GET', key) } end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  hash = function(key) return redis.call('HGETALL', key) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  stream = function(key) return { tostring(redis.call('XLEN', key)) } end,
}
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  all[#all + 1] = { key, kind, redis.call('PTTL', key) == -1 and 1 or 0, readers[kind](key) }
end
return all
"""


@dataclass
class Lane:
    """What the model knows of one user, in Redis and in Postgres."""

    id: UUID
    jobs: list[UUID] = field(default_factory=list)
    score: float | None = None
    token: str | None = None
    lost: str | None = None
    """Whose lease was taken over last, by its token, until something has begun since."""
    until: int = 0
    runs: int = 0
    paced: int = 0
    allowed: int = 0
    dead: set[UUID] = field(default_factory=set)
    requeued: set[UUID] = field(default_factory=set)
    waiting: list[UUID] = field(default_factory=list)
    is_paused: bool = False
    last_fence: int = 0
    is_misplaced: bool = False
    wait: tuple[int, float] | None = None
    """Since when it last waited for more, and the score that this set."""
    has_news: bool = False
    """Whether a full Redis has taken no job of a message since the lease began."""
    is_resumed: bool = False
    """Whether a pause has ended since the lease began."""

    def is_leased(self, now: int) -> bool:
        return self.token is not None and self.until > now

    def release(self) -> None:
        self.lost = None
        self.token, self.runs, self.paced, self.has_news, self.is_resumed = None, 0, 0, False, False

    def become_due(self, now: int) -> None:
        if self.is_leased(now):
            self.score = self.until
        elif self.score is None or self.score > now:
            self.score = now

    def forget(self) -> None:
        """Redis loses its memory; Postgres does not."""
        self.jobs, self.score, self.allowed, self.dead, self.requeued = [], None, 0, set(), set()
        self.wait = None
        self.release()


class Dump:
    """Everything in Redis, comparable."""

    def __init__(self, client: redis.Redis) -> None:
        self.everything: dict[str, tuple[str, bool, Any]] = {}
        for key, kind, lasts, values in client.eval(DUMP, 0):
            pairs = dict(zip(values[::2], values[1::2], strict=True)) if kind in {b"hash", b"zset"} else values
            self.everything[key.decode()] = (kind, bool(lasts), set(values) if kind == b"set" else pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dump) and self.everything == other.everything

    __hash__ = None  # type: ignore[assignment]

    def at(self, key: str, default: Any) -> Any:
        return self.everything.get(key, (None, None, default))[2]


class TwiceScripts(Scripts):
    """Runs each script a second time when told, as after a lost reply, and compares."""

    again = False

    def _run_known_or_load(self, calls: Any) -> list[Any]:
        answers = super()._run_known_or_load(calls)
        if self.again:
            once = Dump(self.client)
            repeated = super()._run_known_or_load(calls)
            assert Dump(self.client) == once, f"{calls[0][0]} run twice is not {calls[0][0]} run once"
            assert repeated == answers or calls[0][0] in CHANGE_THEIR_ANSWER
        return answers


class LanesBeside(RuleBasedStateMachine):
    """The scripts and their model, side by side; it stands in for Postgres too. What may happen are the rules."""

    client: ClassVar[redis.Redis]
    folder: ClassVar[Path] = SCRIPTS

    @initialize()
    def begin(self) -> None:
        self.client.flushall()
        self.make_room()
        self.now = START_MS
        self.messages = 0
        self.hires = 0
        self.lanes = Lanes(self.client, clock_ms=lambda: self.now)
        self.lanes.scripts = self.scripts = TwiceScripts(self.client, self.folder)
        self.people = [Lane(UUID(int=(nr + 1) << 96)) for nr in range(USERS)]
        self.held: list[list[Lease]] = [[] for _ in range(WORKERS)]
        self.unheard: list[list[Lease]] = [[] for _ in range(WORKERS)]
        self.calls = [0] * WORKERS
        self.names = [self.hire() for _ in range(WORKERS)]

    def make_room(self) -> None:
        self.client.config_set("maxmemory", 0)
        self.is_full = False

    def hire(self) -> str:
        self.hires += 1
        return f"worker-{self.hires}"

    def lane_of(self, lease: Lease) -> Lane:
        return next(lane for lane in self.people if lane.id == lease.user_id)

    def put(self, person: Lane, message: UUID, wait: Wait | None = None, *, again: bool = False) -> None:
        self.scripts.again = again
        buried = message in person.dead | person.requeued
        is_known = message in person.jobs and not buried
        is_new = not is_known and (buried or not self.is_full)
        if not is_known and not is_new and person.token:
            person.has_news = True
        [(_, args)] = self.lanes._enqueue_calls([Arrival(person.id, message, wait)])
        assert (self.lanes.scripts.run("enqueue", *args) == 1) is is_new
        person.dead.discard(message)
        person.requeued.discard(message)
        if is_new:
            person.jobs = [job for job in person.jobs if job != message] + [message]
        if wait is not None:
            self.wait_for_more(person, wait, is_new=is_new)
        elif person.score is None:
            person.score = max(self.now, person.allowed)

    def wait_for_more(self, person: Lane, wait: Wait, *, is_new: bool) -> None:
        began, ends = person.wait or (self.now, None)
        if person.score is None:
            began = self.now
        elif person.score != ends or not is_new or person.score <= self.now:
            return
        is_over = wait["is_over"] or (is_new and len(person.jobs) >= wait["most"])
        least = self.now if is_over else min(began + wait["longest_ms"], self.now + wait["quiet_ms"])
        person.score = max(least, person.allowed)
        if person.score <= self.now:
            person.wait = None
        elif not self.is_full:
            person.wait = (began, person.score)

    def make_due(self, person: Lane, *, unpause: bool = False, again: bool = False) -> None:
        self.scripts.again = again
        stays = (person.score == inf and not unpause) or person.is_leased(self.now)
        assert self.lanes.make_due(person.id, unpause=unpause) is not stays
        person.is_resumed |= unpause and person.token is not None
        if person.score != inf or unpause:
            person.become_due(self.now)

    def take(self, leases: tuple[Lease, ...], slots: int) -> None:
        assert [lease.user_id for lease in leases] == self.longest_due(slots), "not the lanes longest due"
        for lease in leases:
            lane = self.lane_of(lease)
            assert not lane.is_leased(self.now), "two valid locks"
            lost = lane.token or lane.lost
            if lane.token and _is_of_one_worker(lane.token, lease.token):
                lost = None
            assert (lease.taken_over, lease.taken_from) == (lost is not None, lost)
            assert lease.fence > max(lane.last_fence, START_MS * 1000), "a fence that does not grow"
            lane.release()
            lane.token, lane.lost, lane.until = lease.token, lost, self.now + TTL_MS
            lane.score, lane.last_fence = lane.until, lease.fence

    def longest_due(self, slots: int) -> list[UUID]:
        """Choose `slots` due lanes; one that is held after all gets its right score instead."""
        chosen: list[UUID] = []
        while len(chosen) < slots:
            due = [lane for lane in self.people if lane.score is not None and lane.score <= self.now]
            due = sorted((lane for lane in due if lane.id not in chosen), key=lambda lane: (lane.score, str(lane.id)))
            if not due:
                break
            for lane in due[: slots - len(chosen)]:
                if lane.is_leased(self.now):
                    lane.score, lane.is_misplaced = lane.until, False
                else:
                    chosen.append(lane.id)
        return chosen

    def paced(self, lane: Lane, pace_ms: int) -> int:
        if not pace_ms:
            return self.now
        if lane.runs > lane.paced:
            lane.allowed = max(lane.allowed, self.now - ALLOWANCE_MS + pace_ms) + pace_ms * (lane.runs - lane.paced)
            lane.paced = lane.runs
        return max(self.now, lane.allowed)

    @invariant()
    def redis_is_as_modelled(self) -> None:
        if not hasattr(self, "people"):
            return
        dump = Dump(self.client)
        scores = {user.decode(): float(score) for user, score in dump.at("lanes:in", {}).items()}
        assert scores == {str(lane.id): lane.score for lane in self.people if lane.score is not None}
        for lane in self.people:
            self.compare(lane, dump)
        listed = {name.decode() for name in dump.at("rq:queues", set())}
        assert listed == {keys.queue(lane.id) for lane in self.people if lane.jobs or lane.dead}
        assert len(dump.at("wake:in", [])) <= 64
        lasting = [key for key, (_, lasts, _) in dump.everything.items() if lasts]
        assert [key for key in lasting if not key.startswith(LASTING)] == []

    def compare(self, lane: Lane, dump: Dump) -> None:
        assert dump.at(keys.queue(lane.id), []) == [str(job).encode() for job in lane.jobs]
        assert {job.decode() for job in dump.at(keys.failed(lane.id), {})} == set(map(str, lane.dead))
        if set(lane.jobs) - lane.requeued:
            assert lane.score is not None, "a lane with jobs that nobody will look at"
        assert dump.at(keys.collect(lane.id), []) == ([f"{lane.wait[0]} {lane.wait[1]}".encode()] if lane.wait else [])
        lock = dump.at(keys.lock(lane.id), {})
        assert lock.get(b"token", b"").decode() == (lane.token or "")
        assert lock.get(b"lost", b"").decode() == (lane.lost or "")
        if lane.is_leased(self.now):
            assert int(lock[b"until"]) == lane.until
            assert lane.score in {lane.until, inf} or lane.is_misplaced


def _is_of_one_worker(token: str, other: str) -> bool:
    """Compare who leased: a worker that takes its own lane over has not died."""
    return token.rpartition(":")[0] == other.rpartition(":")[0]
