"""The scripts one by one, by a clock of the test's: order, pace, pauses, burials, numbers."""

from collections.abc import Sequence
from itertools import count
from math import inf
from uuid import UUID

import fakeredis
import pytest

from onelane import keys
from onelane.lanes.arrivals import Arrival
from onelane.lanes.lanes import Lanes
from onelane.lanes.releases import Released
from onelane.model import Lease
from tests.renewing import renewed

START_MS = 1_790_000_000_000
TTL_S = 15
ALICE, BOB, CAROL = UUID(int=3), UUID(int=2), UUID(int=1)


class Clock:
    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=keys.KINDS)
def lanes(clock: Clock, request: pytest.FixtureRequest) -> Lanes:
    """The lanes of each kind: all rules hold for both."""
    return Lanes(fakeredis.FakeRedis(), request.param, clock_ms=clock)


def _message(nr: int) -> UUID:
    return UUID(int=1_000 + nr)


calls = count()


def _lease(lanes: Lanes, slots: int = 1, worker: str = "w") -> tuple[Lease, ...]:
    """Lease by a call number that no earlier call had."""
    return lanes.lease(worker, next(calls), slots, TTL_S).leases


def _one(lanes: Lanes, worker: str = "w") -> Lease:
    [lease] = _lease(lanes, worker=worker)
    return lease


def _score(lanes: Lanes, user: UUID) -> float | None:
    return lanes.scores([user])[0]


# who comes next


def test_the_lane_that_is_due_longest_is_leased_first(lanes: Lanes, clock: Clock) -> None:
    for user in (ALICE, BOB, CAROL):
        lanes.enqueue(user, user)
        clock.ms += 1
    assert [lease.user_id for lease in _lease(lanes, slots=2)] == [ALICE, BOB]
    assert [lease.user_id for lease in _lease(lanes, slots=2)] == [CAROL]


def test_a_lane_whose_quantum_is_used_up_goes_to_the_end_of_the_due_order(lanes: Lanes, clock: Clock) -> None:
    for user in (ALICE, BOB, CAROL):
        lanes.enqueue(user, _message(user.int))
        clock.ms += 1
    lease = _one(lanes)
    assert lease.user_id == ALICE
    assert lanes.finish(lease, [_message(3)], has_more=True, may_go_on=True) is Released.GO_ON
    clock.ms += 100
    assert lanes.finish(lease, has_more=True, may_go_on=False) is Released.RELEASED
    assert [lease.user_id for lease in _lease(lanes, slots=3)] == [BOB, CAROL, ALICE]


def test_a_second_message_does_not_move_a_waiting_lane(lanes: Lanes, clock: Clock) -> None:
    lanes.enqueue(ALICE, _message(1))
    clock.ms += 1
    lanes.enqueue(BOB, _message(2))
    clock.ms += 1
    lanes.enqueue(ALICE, _message(3))
    lanes.make_due(ALICE)
    assert _score(lanes, ALICE) == START_MS


def test_a_worker_learns_once_of_what_comes_for_a_lane_that_it_has(lanes: Lanes) -> None:
    def arrive(message: int, newer: int) -> None:
        [(_, args)] = lanes._enqueue_calls([Arrival(ALICE, _message(message), newer=newer)])
        lanes.scripts.run("enqueue", *args)

    arrive(1, 1)
    lanes.lease("w", 0, 1, TTL_S)
    assert lanes.newer("w") == {}
    arrive(2, 2)
    arrive(3, 3)
    arrive(2, 2)  # delivered again
    assert lanes.newer("w") == {ALICE: 3}
    assert lanes.newer("w") == {}


def test_next_due_says_when_the_first_lane_may_be_taken(lanes: Lanes) -> None:
    assert lanes.lease("w", 0, 1, TTL_S).next_due_s is None
    lanes.enqueue(ALICE, _message(1))
    lanes.park(_one(lanes), 7)
    assert lanes.lease("w", 1, 1, TTL_S).next_due_s == 7
    lanes.pause(ALICE)
    assert lanes.lease("w", 2, 1, TTL_S).next_due_s is None


def test_what_is_no_user_is_taken_off_the_lanes(lanes: Lanes) -> None:
    lanes.client.zadd(keys.lanes(lanes.kind), {"garbage": 0, "-" * 36: 0})
    assert _lease(lanes, slots=5) == ()
    assert lanes.client.zcard(keys.lanes(lanes.kind)) == 0


# leases


def test_a_lease_that_ran_out_is_taken_over_by_a_larger_fence(lanes: Lanes, clock: Clock) -> None:
    lanes.enqueue(ALICE, _message(1))
    first = _one(lanes)
    clock.ms += TTL_S * 1000 - 1
    assert _lease(lanes) == ()
    clock.ms += 1
    second = _one(lanes, worker="other")
    assert (first.taken_over, second.taken_over) == (False, True)
    assert (first.taken_from, second.taken_from) == (None, first.token)
    assert second.fence > first.fence
    assert renewed(lanes, [first, second], TTL_S) == {first.token}
    assert lanes.finish(first, [_message(1)]) is Released.LOST
    assert lanes.park(first, 0) is False
    assert lanes.bury(first, _message(1), "Traceback: …") is False
    assert lanes.jobs(ALICE) == [str(_message(1))]


def test_a_lease_that_ran_out_and_that_nobody_took_can_be_renewed(lanes: Lanes, clock: Clock) -> None:
    lanes.enqueue(ALICE, _message(1))
    lease = _one(lanes)
    clock.ms += TTL_S * 2000
    assert renewed(lanes, [lease], TTL_S) == set()
    assert _lease(lanes) == ()


# who is dead, and who is only late


def _hear(lanes: Lanes, clock: Clock, ttl_s: float, *beats: str, held: Sequence[Lease] = ()) -> None:
    """Let a third of a lease's life pass, then hear these workers; "holder" renews what it holds."""
    clock.ms += round(ttl_s * 1000 / 3)
    for worker in beats:
        renewed(lanes, held if worker == "holder" else [], ttl_s, worker)


def _held_and_renewed(lanes: Lanes, clock: Clock, ttl_s: float) -> Lease:
    lanes.enqueue(ALICE, _message(1))
    [lease] = lanes.lease("holder", next(calls), 1, ttl_s).leases
    for _ in range(4):
        _hear(lanes, clock, ttl_s, "holder", "other", held=[lease])
    return lease


def _is_a_death(lanes: Lanes, worker: str = "other") -> bool:
    return _one(lanes, worker=worker).taken_over


@pytest.mark.parametrize("ttl_s", [1, 15, 600])
def test_a_worker_that_is_killed_is_taken_for_dead_when_its_lease_ends(
    ttl_s: float, lanes: Lanes, clock: Clock
) -> None:
    _held_and_renewed(lanes, clock, ttl_s)
    for _ in range(4):
        _hear(lanes, clock, ttl_s, "other")
    assert _is_a_death(lanes)


@pytest.mark.parametrize("ttl_s", [1, 15, 600])
def test_a_worker_that_is_heard_is_not_dead_however_late_its_release_is(
    ttl_s: float, lanes: Lanes, clock: Clock
) -> None:
    _held_and_renewed(lanes, clock, ttl_s)
    for _ in range(4):
        _hear(lanes, clock, ttl_s, "holder", "other")  # it let the lane go, and renews it no more
    assert not _is_a_death(lanes)


def test_a_worker_killed_after_it_let_a_lane_go_did_not_die_with_it(lanes: Lanes, clock: Clock) -> None:
    _held_and_renewed(lanes, clock, TTL_S)
    for beats in (["holder", "other"], ["holder", "other"], ["other"], ["other"], ["other"]):
        _hear(lanes, clock, TTL_S, *beats)
    assert not _is_a_death(lanes)


def test_a_worker_that_takes_its_own_lane_over_has_not_died(lanes: Lanes, clock: Clock) -> None:
    _held_and_renewed(lanes, clock, TTL_S)
    clock.ms += TTL_S * 1000
    assert not _is_a_death(lanes, worker="holder")


def test_a_worker_that_said_goodbye_has_not_died(lanes: Lanes, clock: Clock) -> None:
    _held_and_renewed(lanes, clock, TTL_S)
    lanes.client.hset(keys.worker("holder"), "death", "2026-11-26T04:00:00Z")
    for _ in range(4):
        _hear(lanes, clock, TTL_S, "other")
    assert not _is_a_death(lanes)


@pytest.mark.parametrize("heard_first", [True, False], ids=["heard again", "not heard again yet"])
def test_nobody_is_dead_because_redis_was_away(heard_first: bool, lanes: Lanes, clock: Clock) -> None:
    _held_and_renewed(lanes, clock, TTL_S)
    clock.ms += 2 * TTL_S * 1000
    if heard_first:
        renewed(lanes, [], TTL_S, "other")
    assert not _is_a_death(lanes)


def test_when_a_worker_was_heard_is_known_for_as_long_as_the_locks_that_it_explains(lanes: Lanes, clock: Clock) -> None:
    lease = _held_and_renewed(lanes, clock, TTL_S)
    assert lanes.client.pttl(keys.beat("holder")) >= lanes.client.pttl(keys.lock(lease.user_id))


def test_a_worker_killed_after_redis_was_away_is_dead(lanes: Lanes, clock: Clock) -> None:
    lease = _held_and_renewed(lanes, clock, TTL_S)
    clock.ms += 2 * TTL_S * 1000
    _hear(lanes, clock, TTL_S, "other", "holder", held=[lease])
    for _ in range(4):
        _hear(lanes, clock, TTL_S, "other")
    assert _is_a_death(lanes)


def test_what_nobody_knows_of_a_holder_is_taken_for_its_death(lanes: Lanes, clock: Clock) -> None:
    _held_and_renewed(lanes, clock, TTL_S)
    lanes.client.delete(keys.beat("holder"), keys.beat("other"))
    clock.ms += TTL_S * 1000
    assert _is_a_death(lanes)


def _takes_over(lanes: Lanes, clock: Clock) -> tuple[Lease, Lease]:
    """Return the lease of a worker that died, and the one that took its lane over."""
    died = _held_and_renewed(lanes, clock, TTL_S)
    for _ in range(4):
        _hear(lanes, clock, TTL_S, "other")
    return died, _one(lanes, worker="other")


def test_a_death_is_known_until_what_waits_on_the_lane_has_begun_again(lanes: Lanes, clock: Clock) -> None:
    died, lease = _takes_over(lanes, clock)
    for worker in ("third", "other", "third"):
        assert (lease.taken_over, lease.taken_from) == (True, died.token)
        assert lanes.park(lease, 0, has_begun=False)
        assert not lanes.park(lease, 0, has_begun=False)
        lease = _one(lanes, worker=worker)
    lanes.park(lease, 0)
    assert not _is_a_death(lanes)


def test_who_is_given_back_before_it_has_begun_died_of_nothing(lanes: Lanes) -> None:
    lanes.enqueue(ALICE, _message(1))
    lanes.park(_one(lanes), 0, has_begun=False)
    assert not _is_a_death(lanes)


def test_a_death_before_anything_has_begun_again_is_the_one_that_is_known(lanes: Lanes, clock: Clock) -> None:
    _, lease = _takes_over(lanes, clock)
    lanes.park(lease, 0, has_begun=False)
    third = _one(lanes, worker="third")
    for _ in range(4):
        _hear(lanes, clock, TTL_S, "other")
    last = _one(lanes, worker="other")
    assert (last.taken_over, last.taken_from) == (True, third.token)


# asked again


def test_a_lease_call_asked_again_answers_the_same(lanes: Lanes) -> None:
    lanes.enqueue(ALICE, _message(1))
    first = lanes.lease("w", 1, 5, TTL_S)
    lanes.enqueue(BOB, _message(2))
    assert lanes.lease("w", 1, 5, TTL_S).leases == first.leases
    assert [lease.user_id for lease in lanes.lease("w", 2, 5, TTL_S).leases] == [BOB]


def test_a_lease_call_asked_again_too_late_leaves_out_what_another_took_over(lanes: Lanes, clock: Clock) -> None:
    lanes.enqueue(ALICE, _message(1))
    lanes.enqueue(BOB, _message(2))
    assert len(lanes.lease("w", 1, 5, TTL_S).leases) == 2
    clock.ms += TTL_S * 1000
    [taken] = lanes.lease("other", 1, 1, TTL_S).leases
    [left] = lanes.lease("w", 1, 5, TTL_S).leases
    assert left.user_id != taken.user_id


@pytest.mark.parametrize("late_ms", [TTL_S * 1000 - 1, TTL_S * 1000, TTL_S * 3000])
def test_a_lease_call_asked_again_late_hands_out_no_lease_that_ends(lanes: Lanes, clock: Clock, late_ms: int) -> None:
    lanes.enqueue(ALICE, _message(1))
    leased = lanes.lease("w", 1, 5, TTL_S).leases
    clock.ms += late_ms
    assert lanes.lease("w", 1, 5, TTL_S).leases == leased
    clock.ms += TTL_S * 1000 - 1
    assert lanes.lease("other", 1, 5, TTL_S).leases == ()
    assert _score(lanes, ALICE) == clock.ms + 1


def test_a_lease_call_asked_again_leaves_a_pause_alone_and_a_lane_that_went_on(lanes: Lanes) -> None:
    lanes.enqueue(ALICE, _message(1))
    lanes.enqueue(BOB, _message(2))
    alices = next(lease for lease in lanes.lease("w", 1, 5, TTL_S).leases if lease.user_id == ALICE)
    lanes.park(alices, 7)
    lanes.pause(BOB)
    due = _score(lanes, ALICE)
    assert [lease.user_id for lease in lanes.lease("w", 1, 5, TTL_S).leases] == [BOB]
    assert (_score(lanes, ALICE), _score(lanes, BOB)) == (due, inf)


def test_a_fence_grows_over_the_loss_of_the_counter(lanes: Lanes, clock: Clock) -> None:
    lanes.enqueue(ALICE, _message(1))
    before = _one(lanes).fence
    lanes.client.flushall()
    clock.ms += 1
    lanes.enqueue(ALICE, _message(1))
    assert _one(lanes).fence > before


def test_the_fence_can_be_raised_and_never_lowered(lanes: Lanes) -> None:
    assert lanes.raise_fence(START_MS * 1000 + 1_000_000) == START_MS * 1000 + 1_000_000
    assert lanes.raise_fence(5) == START_MS * 1000 + 1_000_000
    lanes.enqueue(ALICE, _message(1))
    assert _one(lanes).fence == START_MS * 1000 + 1_000_001


def test_a_malformed_session_hint_is_told_from_none(lanes: Lanes) -> None:
    lanes.enqueue(ALICE, _message(1))
    lanes.client.set(keys.session(ALICE), "nonsense")
    lease = _one(lanes)
    assert (lease.session_hint, lease.hint_is_malformed) == (None, True)


# pauses


@pytest.mark.parametrize("delay_s", [0, 30])
def test_giving_a_lane_up_takes_off_what_was_done_under_the_lease(delay_s: int, lanes: Lanes) -> None:
    for nr in (1, 2, 3):
        lanes.enqueue(ALICE, _message(nr))
    lease = _one(lanes)
    assert lanes.park(lease, delay_s, [_message(1), _message(2)]) is True
    assert lanes.jobs(ALICE) == [str(_message(3))]
    assert lanes.park(lease, delay_s, [_message(3)]) is False  # another's by now
    assert lanes.jobs(ALICE) == [str(_message(3))]


def test_a_pause_outlasts_renewing_parking_finishing_and_new_messages(lanes: Lanes, clock: Clock) -> None:
    lanes.enqueue(ALICE, _message(1))
    lease = _one(lanes)
    lanes.pause(ALICE)
    renewed(lanes, [lease], TTL_S)
    lanes.enqueue(ALICE, _message(2))
    assert lanes.make_due(ALICE) is False
    assert lanes.finish(lease, [_message(1)], may_go_on=True) is Released.PAUSED
    clock.ms += 3_600_000
    assert _lease(lanes) == ()
    assert lanes.make_due(ALICE, unpause=True) is True
    assert _one(lanes).user_id == ALICE


def test_a_paused_lane_with_nothing_waiting_is_forgotten(lanes: Lanes) -> None:
    lanes.enqueue(ALICE, _message(1))
    lease = _one(lanes)
    lanes.pause(ALICE)
    assert lanes.finish(lease, [_message(1)]) is Released.FORGOTTEN
    assert _score(lanes, ALICE) is None


def test_resuming_a_user_whose_turn_still_runs_leaves_the_lease_alone(lanes: Lanes) -> None:
    lanes.enqueue(ALICE, _message(1))
    _one(lanes)
    lanes.pause(ALICE)
    assert lanes.make_due(ALICE, unpause=True) is False
    assert _score(lanes, ALICE) == START_MS + TTL_S * 1000


@pytest.mark.parametrize("lives", [True, False])
@pytest.mark.parametrize("has_a_job", [True, False])
def test_a_pause_that_ended_under_the_lease_is_not_put_on_the_lane_again(
    lanes: Lanes, clock: Clock, lives: bool, has_a_job: bool
) -> None:
    """The worker has heard in Postgres that the user is paused, then an operator resumes the user."""
    lanes.enqueue(ALICE, _message(1))
    lease = _one(lanes)
    lanes.pause(ALICE)
    clock.ms += 0 if lives else TTL_S * 1000 + 1
    lanes.make_due(ALICE, unpause=True)
    done = [] if has_a_job else [_message(1)]
    end = lanes.finish(lease, done, pause=True, may_go_on=True)
    assert end is (Released.GO_ON if lives else Released.RELEASED)
    assert lives or _one(lanes).user_id == ALICE


def test_a_user_who_was_resumed_and_paused_again_stays_paused(lanes: Lanes) -> None:
    lanes.enqueue(ALICE, _message(1))
    lease = _one(lanes)
    lanes.make_due(ALICE, unpause=True)
    lanes.pause(ALICE)
    assert lanes.finish(lease, pause=True) is Released.PAUSED
    assert lanes.make_due(ALICE) is False


def test_a_lease_knows_nothing_of_what_was_resumed_before_it(lanes: Lanes) -> None:
    lanes.enqueue(ALICE, _message(1))
    lease = _one(lanes)
    lanes.make_due(ALICE, unpause=True)
    lanes.park(lease, 0)
    assert lanes.finish(_one(lanes), pause=True) is Released.PAUSED


# the rate limit


def _talk(lanes: Lanes, clock: Clock, pace_ms: int, messages: Sequence[int]) -> list[int]:
    """Let ALICE's messages run as soon as they may, and tell when each began, in ms from the start."""
    for nr in messages:
        lanes.enqueue(ALICE, _message(nr))
    began = []
    for nr in messages:
        while not (leases := _lease(lanes)):
            clock.ms = int(_score(lanes, ALICE) or 0)
        began.append(clock.ms - START_MS)
        lanes.finish(leases[0], [_message(nr)], may_go_on=False, pace_ms=pace_ms, runs=1)
    return began


def test_a_minutes_allowance_may_be_used_at_once_then_turns_come_one_by_one(lanes: Lanes, clock: Clock) -> None:
    assert _talk(lanes, clock, 15_000, range(7)) == [0, 0, 0, 0, 15_000, 30_000, 45_000]


def test_a_lane_that_was_empty_in_between_is_held_to_its_limit_all_the_same(lanes: Lanes, clock: Clock) -> None:
    began = [_talk(lanes, clock, 20_000, [nr])[0] for nr in range(5)]
    assert began == [0, 0, 0, 20_000, 40_000]


def test_who_was_silent_for_a_minute_has_the_whole_allowance_again(lanes: Lanes, clock: Clock) -> None:
    _talk(lanes, clock, 20_000, range(3))
    clock.ms += 60_000
    assert _talk(lanes, clock, 20_000, range(3, 7)) == [60_000, 60_000, 60_000, 80_000]


def test_a_finish_repeated_counts_its_turn_once(lanes: Lanes) -> None:
    for nr in range(3):
        lanes.enqueue(ALICE, _message(nr))
    lease = _one(lanes)
    for _ in range(2):
        assert lanes.finish(lease, [_message(0)], may_go_on=True, pace_ms=20_000, runs=1) is Released.GO_ON
    assert lanes.finish(lease, [_message(1)], may_go_on=True, pace_ms=20_000, runs=2) is Released.GO_ON


def test_the_limit_stops_a_lease_that_could_go_on(lanes: Lanes) -> None:
    lanes.enqueue(ALICE, _message(1))
    lanes.enqueue(ALICE, _message(2))
    assert lanes.finish(_one(lanes), [_message(1)], may_go_on=True, pace_ms=60_000, runs=1) is Released.RELEASED
    assert _score(lanes, ALICE) == START_MS + 60_000


# the dead


def test_a_dead_message_leaves_the_lane_for_rqs_registry_until_it_is_redriven(lanes: Lanes) -> None:
    lanes.enqueue(ALICE, _message(1))
    lease = _one(lanes)
    assert lanes.bury(lease, _message(1), "Traceback: …")
    assert lanes.finish(lease) is Released.FORGOTTEN
    assert lanes.client.zrange(keys.failed(ALICE, lanes.kind), 0, -1) == [str(_message(1)).encode()]
    assert lanes.client.smembers("rq:queues") == {keys.queue(ALICE, lanes.kind).encode()}
    assert lanes.enqueue(ALICE, _message(1)) is True
    assert lanes.client.zcard(keys.failed(ALICE, lanes.kind)) == 0
    assert lanes.jobs(ALICE) == [str(_message(1))]


def test_a_message_redriven_without_redis_leaves_the_dead_when_it_is_done(lanes: Lanes) -> None:
    lanes.enqueue(ALICE, _message(1))
    lease = _one(lanes)
    lanes.bury(lease, _message(1), "Traceback: …")
    assert lanes.finish(lease, [_message(1)]) is Released.FORGOTTEN
    assert lanes.client.keys("rq:*") == []


def test_discarding_a_strangers_job_leaves_its_owner_alone(lanes: Lanes) -> None:
    lanes.enqueue(ALICE, _message(1))
    lanes.client.rpush(keys.queue(BOB, lanes.kind), str(_message(1)))
    lanes.discard(BOB, _message(1))
    assert lanes.jobs(BOB) == []
    assert lanes.jobs(ALICE) == [str(_message(1))]
    assert lanes.client.exists(keys.job(_message(1)))


# a user's two lanes


def test_a_users_lane_of_turns_and_lane_of_replies_know_nothing_of_each_other(clock: Clock) -> None:
    client = fakeredis.FakeRedis()
    of_turns, of_replies = (Lanes(client, kind, clock_ms=clock) for kind in keys.KINDS)
    of_turns.enqueue(ALICE, _message(1))
    assert _lease(of_replies) == ()
    of_replies.enqueue(ALICE, _message(2))
    turn, reply = _one(of_turns), _one(of_replies)
    assert (turn.kind, reply.kind) == (keys.IN, keys.OUT)
    assert reply.fence > turn.fence, "one counter gives both"
    clock.ms += TTL_S * 1000 - 1
    assert renewed(of_turns, [turn], TTL_S) == renewed(of_replies, [reply], TTL_S) == set()
    of_replies.pause(ALICE)
    assert of_replies.park(reply, 60) is True
    assert (_score(of_turns, ALICE), _score(of_replies, ALICE)) == (clock.ms + TTL_S * 1000, float("inf"))
    assert of_turns.finish(turn, [_message(1)]) is Released.FORGOTTEN
    assert (of_turns.jobs(ALICE), of_replies.jobs(ALICE)) == ([], [str(_message(2))])


def test_a_worker_leases_of_each_kind_by_its_own_call_numbers(clock: Clock) -> None:
    client = fakeredis.FakeRedis()
    both = [Lanes(client, kind, clock_ms=clock) for kind in keys.KINDS]
    for lanes in both:
        lanes.enqueue(ALICE, _message(1))
    leased = [lanes.lease("w", 0, 1, TTL_S).leases for lanes in both]
    assert [lanes.lease("w", 0, 1, TTL_S).leases for lanes in both] == leased
