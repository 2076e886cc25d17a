"""What may happen to lanes: the rules by which hypothesis drives the scripts and their model."""

from math import inf
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import rule
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from onelane import keys
from onelane.lanes.arrivals import Wait
from onelane.lanes.releases import Released
from onelane.model import Lease
from tests.lane_model import TTL_MS, USERS, WORKERS, Lane, LanesBeside
from tests.renewing import renewed

users = st.integers(0, USERS - 1)
workers = st.integers(0, WORKERS - 1)
sometimes = st.booleans()
paces = st.sampled_from([0, 25_000])
WAIT = Wait(quiet_ms=30_000, longest_ms=31_000, most=4, is_over=False)
"""Longer than a test takes: the time of keys is not the injected one."""
waits = st.sampled_from([None, WAIT, WAIT, Wait(**{**WAIT, "is_over": True})])


class LanesMachine(LanesBeside):
    """Several workers and users on one Redis, by an injected clock."""

    # Postgres and intake

    @rule(who=users, wait=waits, again=sometimes)
    def accept(self, who: int, again: bool, wait: Wait | None = None) -> None:
        self.messages += 1
        message = UUID(int=self.messages)
        self.people[who].waiting.append(message)
        self.put(self.people[who], message, wait, again=again)

    @rule(who=users, ms=st.sampled_from([5_000, 30_000]), again=sometimes)
    def write_twice(self, who: int, ms: int, again: bool) -> None:
        """Somebody writes, and once more some time after; what was delivered first comes again in between."""
        self.accept(who, again, WAIT)
        self.now += ms
        self.deliver_again(who, WAIT, again)
        self.accept(who, again, WAIT)

    @rule(who=users, wait=waits, again=sometimes)
    def deliver_again(self, who: int, wait: Wait | None, again: bool) -> None:
        if (person := self.people[who]).waiting:
            self.put(person, person.waiting[-1], wait, again=again)

    @rule(who=users, is_at_work=sometimes, again=sometimes)
    def pause(self, who: int, is_at_work: bool, again: bool) -> None:
        if is_at_work and not any(self.held):
            self.find_work(who)
        self.scripts.again = again
        person = self.lane_of((self.held[0] or self.held[1])[0]) if is_at_work else self.people[who]
        person.is_paused = True
        assert self.lanes.pause(person.id) is (person.score is not None)
        if person.score is not None:
            person.score = inf

    @rule(who=users, again=sometimes)
    def resume(self, who: int, again: bool) -> None:
        self.people[who].is_paused = False
        self.make_due(self.people[who], unpause=True, again=again)

    @rule()
    def reconcile(self) -> None:
        self.scripts.again = False
        for person in self.people:
            if person.score is None and person.waiting:
                assert self.lanes.bring_back([person.id]) == [True]
                person.score = max(self.now, person.allowed)
                if person.is_paused:
                    self.lanes.pause(person.id)
                    person.score = inf

    @rule(who=users, delay_ms=st.sampled_from([700, 30_000]), again=sometimes)
    def postpone(self, who: int, delay_ms: int, again: bool) -> None:
        person = self.people[who]
        is_due = person.score is not None and person.score <= self.now and person.token is None
        self.scripts.again = again
        assert person.id in self.lanes.longest_due(USERS).users or not is_due
        [answer] = self.lanes.postpone({person.id: delay_ms / 1000})
        assert answer is is_due
        if is_due:
            person.score = self.now + delay_ms

    # workers

    @rule(worker=workers, slots=st.integers(1, USERS), reply_is_lost=sometimes, again=sometimes)
    def lease(self, worker: int, slots: int, reply_is_lost: bool, again: bool) -> None:
        self.scripts.again = again
        answer = self.lanes.lease(self.names[worker], self.calls[worker], slots, TTL_MS / 1000)
        if self.unheard[worker]:
            expected = [one for one in self.unheard[worker] if self.lane_of(one).token == one.token]
            assert list(answer.leases) == expected
            self.live_on(expected)
        else:
            self.take(answer.leases, slots)
        scores = [person.score for person in self.people if person.score is not None]
        due_in_s = None if min(scores, default=inf) == inf else max(0, min(scores) - self.now) / 1000
        assert answer.next_due_s == due_in_s
        if reply_is_lost:
            self.unheard[worker] = list(answer.leases) or self.unheard[worker]  # lost again: it is still the same call
        else:
            self.held[worker] += answer.leases
            self.unheard[worker] = []
            self.calls[worker] += 1

    @rule(worker=workers, is_deaf=sometimes)
    def take_over(self, worker: int, is_deaf: bool) -> None:
        """The other worker's leases run out; perhaps those of which it has not even heard."""
        other = (worker + 1) % WORKERS
        self.lease(other, USERS, reply_is_lost=is_deaf, again=False)
        self.now += TTL_MS
        self.lease(worker, USERS, reply_is_lost=False, again=False)
        if is_deaf:
            self.lease(other, USERS, reply_is_lost=False, again=False)

    @rule(worker=workers, again=sometimes)
    def renew(self, worker: int, again: bool) -> None:
        if not any(self.held):
            self.find_work(worker)
        self.scripts.again = again
        lost = {one.token for one in self.held[worker] if self.lane_of(one).token != one.token}
        assert renewed(self.lanes, self.held[worker], TTL_MS / 1000) == lost
        self.live_on([one for one in self.held[worker] if one.token not in lost])

    def live_on(self, leases: list[Lease]) -> None:
        for lane in map(self.lane_of, leases):
            lane.until = self.now + TTL_MS
            lane.score = inf if lane.score == inf else lane.until

    @rule(
        which=st.integers(0, 9),
        is_done=sometimes,
        has_run=sometimes,
        may_go_on=sometimes,
        pace_ms=paces,
        session_ms=st.sampled_from([0, 90_000]),
        has_met_pause=sometimes,
        again=sometimes,
    )
    def finish(
        self,
        which: int,
        is_done: bool,
        has_run: bool,
        may_go_on: bool,
        pace_ms: int,
        session_ms: int,
        has_met_pause: bool,
        again: bool,
    ) -> None:
        lease, lane = self.let_go(which)
        self.scripts.again = again
        is_ours = lane.token == lease.token
        done = lane.waiting[:1] if is_done and is_ours and not lane.is_paused else []
        lane.waiting = lane.waiting[len(done) :]
        lane.runs += is_ours and has_run
        foreign = len(lane.requeued)
        pause = lane.is_paused or (has_met_pause and lane.is_resumed)
        is_resumed = lane.is_resumed and pause and lane.score != inf
        answer = self.lanes.finish(
            lease,
            done,
            may_go_on=may_go_on,
            has_more=bool(lane.waiting),
            foreign=foreign,
            pause=pause,
            session_id=UUID(int=1),
            session_ms=session_ms,
            pace_ms=pace_ms,
            runs=lane.runs,
        )
        if not is_ours:
            assert answer is Released.LOST
            return
        lane.jobs = [job for job in lane.jobs if job not in done]
        due = self.paced(lane, pace_ms)
        if answer is Released.GO_ON:
            assert may_go_on
            assert lane.waiting or len(lane.jobs) > foreign or lane.has_news or is_resumed
            assert due <= self.now < lane.until
            assert lane.score != inf
            self.held[which % WORKERS].append(lease)
            return
        has_work = lane.waiting or len(lane.jobs) > foreign or lane.has_news or is_resumed
        lane.release()
        if not has_work:
            assert answer is Released.FORGOTTEN
            lane.score = None
        elif (pause and not is_resumed) or lane.score == inf:
            assert answer is Released.PAUSED
            lane.score = inf
        else:
            assert answer is Released.RELEASED
            lane.score = due

    @rule(
        which=st.integers(0, 9),
        delay_ms=st.sampled_from([0, 700, 5_000]),
        has_run=sometimes,
        pace_ms=paces,
        again=sometimes,
    )
    def park(self, which: int, delay_ms: int, has_run: bool, pace_ms: int, again: bool) -> None:
        """Give a lane up; who has not run has not begun."""
        lease, lane = self.let_go(which)
        self.scripts.again = again
        is_ours = lane.token == lease.token
        lane.runs += is_ours and has_run
        parked = self.lanes.park(lease, delay_ms / 1000, has_begun=has_run, pace_ms=pace_ms, runs=lane.runs)
        assert parked is is_ours
        if is_ours:
            due = max(self.paced(lane, pace_ms), self.now + delay_ms)
            lost = None if has_run else lane.lost
            lane.release()
            lane.lost = lost
            lane.score = inf if lane.score == inf else due

    @rule(which=st.integers(0, 9), again=sometimes)
    def bury(self, which: int, again: bool) -> None:
        lease, lane = self.let_go(which)
        self.scripts.again = again
        self.held[which % WORKERS].append(lease)
        if not lane.waiting:
            return
        message, is_ours = lane.waiting[0], lane.token == lease.token
        assert self.lanes.bury(lease, message, "Traceback: …") is is_ours
        if is_ours:
            lane.waiting.remove(message)
            lane.jobs = [job for job in lane.jobs if job != message]
            if not self.is_full:
                lane.dead.add(message)

    @rule(who=users)
    def requeue_by_rq(self, who: int) -> None:
        self.make_room()
        person = self.people[who]
        if not person.dead:
            self.bury(who, again=False)
        self.scripts.again = False
        for message in sorted(person.dead)[:1]:
            registry = FailedJobRegistry(keys.queue_name(person.id), connection=self.client, serializer=JSONSerializer)
            registry.requeue(str(message))
            person.dead.remove(message)
            person.requeued.add(message)
            person.jobs.append(message)

    @rule(again=sometimes)
    def redrive(self, again: bool) -> None:
        if not any(lane.requeued for lane in self.people):
            self.requeue_by_rq(0)
        self.scripts.again = again
        found = self.lanes.requeued(self.lanes.buried_users())
        expected = {(lane.id, str(message)) for lane in self.people for message in lane.requeued}
        assert set(found) == expected
        for lane in self.people:
            for message in sorted(lane.requeued):
                lane.waiting = sorted([*lane.waiting, message])
                self.put(lane, message)
                self.make_due(lane)

    @rule(worker=workers)
    def crash(self, worker: int) -> None:
        self.held[worker], self.unheard[worker], self.names[worker] = [], [], self.hire()

    # time and fate

    @rule()
    def fill_up(self) -> None:
        self.client.config_set("maxmemory", 1)
        self.is_full = True

    @rule()
    def have_room(self) -> None:
        self.make_room()

    @rule(who=users)
    def meddle(self, who: int) -> None:
        """Somebody writes a leased lane's score by hand."""
        self.make_room()
        if not any(self.held):
            self.find_work(who)
        if (lane := self.people[who]).is_leased(self.now) and lane.score != inf:
            self.client.zadd("lanes:in", {str(lane.id): self.now})
            lane.score, lane.is_misplaced = self.now, True

    @rule(ms=st.sampled_from([1, 100, TTL_MS - 1, TTL_MS, 5_000, 30_000]))
    def wait(self, ms: int) -> None:
        self.now += ms

    @rule()
    def lose_memory(self) -> None:
        self.now += 1
        self.client.flushall()
        self.unheard = [[] for _ in range(WORKERS)]
        for lane in self.people:
            lane.forget()

    def let_go(self, which: int) -> tuple[Lease, Lane]:
        """Choose a lease of some worker; it is in hand no more."""
        if not any(self.held):
            self.find_work(which)
        held = self.held[which % WORKERS] or next(filter(None, self.held))
        lease = held.pop(which % len(held))
        return lease, self.lane_of(lease)

    def find_work(self, which: int) -> None:
        """See to it that a worker has a lease: a rule that finds nothing to do tests nothing."""
        lane = self.people[which % USERS]
        while len(lane.waiting) < 1 + which // USERS % 2:
            self.accept(which % USERS, again=False)
        self.resume(which % USERS, again=False)
        if lane.is_leased(self.now):
            self.now = lane.until
        while not any(self.held):
            self.lease(which % WORKERS, USERS, reply_is_lost=False, again=False)
