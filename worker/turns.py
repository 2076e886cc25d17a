"""The spine: begin, handle, commit, finish; again, until the lane is empty or its quantum used up.

Postgres is asked what to do next and told what was done; while a lane goes on, both in one call. Redis is told
afterwards, once a lease. Between begin and commit no connection is held. A fenced turn is dropped, whatever it did: a
later lease has written.
"""

import random
import time
from threading import Event
from typing import NamedTuple
from uuid import UUID

import psycopg

from worker.config import Channel, Settings
from worker.counters import END_TO_END_SECONDS, TURN_SECONDS, TURNS
from worker.errors import LanesUnavailable, StoreUnavailable
from worker.failure import HandlerFailed
from worker.handlers import Memory, Session, Turn, User
from worker.handlers.hosting import Host
from worker.handlers.isolation import Isolation
from worker.lanes import Lanes, Released
from worker.ledger import Ledger
from worker.lock import Holding
from worker.model import BeginOutcome, Begun, CommitOutcome, JsonObject, Settled
from worker.renewal import RENEWALS_PER_TTL
from worker.telemetry import forget_names, log, name_turn

OUTAGE_PAUSE_S = 2.0
SUSPECT_AFTER_DEATHS = 2
"""Worker deaths with a message in flight after which its handler runs in a process of its own."""
DEATHS_PER_ATTEMPT = 5
"""Deaths that nobody saw happen count as one failed attempt when there are this many."""
SUSPECT_PAUSE_S = 0.5
MINUTE_MS = 60_000


class Turns:
    """Works leased lanes off."""

    def __init__(
        self,
        settings: Settings,
        lanes: Lanes,
        ledger: Ledger,
        memory: Memory,
        host: Host,
        isolation: Isolation,
        stopping: Event,
    ) -> None:
        """Once `stopping` is set a lane is handed on after the turn at hand."""
        self._settings = settings
        self._lanes = lanes
        self._ledger = ledger
        self._memory = memory
        self._host = host
        self._isolation = isolation
        self._stopping = stopping

    def work(self, holding: Holding) -> None:
        """Run a leased lane's turns until it is empty, must wait, or has had its quantum."""
        try:
            self._work(holding)
        except StoreUnavailable as error:
            log.warning("store_unavailable", user_id=str(holding.lease.user_id), error=str(error))
            self._park(holding, _jittered(OUTAGE_PAUSE_S))
        except psycopg.Error as error:
            # The database's fault, not the message's: no attempt, and the lease is given back, which is no death.
            log.error("turn_impossible", user_id=str(holding.lease.user_id), sqlstate=error.sqlstate)
            self._park(holding, _jittered(OUTAGE_PAUSE_S))
        except LanesUnavailable as error:
            # The lease runs out by itself, and Postgres knows what is done.
            log.warning("lanes_unavailable", user_id=str(holding.lease.user_id), error=str(error))
        finally:
            forget_names()

    def time_out(self, holding: Holding, overdue: Begun) -> None:
        """Count an overdue turn as failed and give its lane on; the handler's late result will be dropped."""
        if holding.turn is not overdue or not holding.close():
            return
        holding.cancel()
        failure = f"the handler did not finish within {self._settings.turn_timeout_s:g} s"
        try:
            self._finish(holding, overdue, self._fail(holding, overdue, failure), may_go_on=False)
        except (StoreUnavailable, LanesUnavailable) as error:
            log.warning("lane_left_to_its_lease", user_id=str(holding.lease.user_id), error=str(error))

    def hand_back(self, holding: Holding) -> None:
        """Give a lane back at once, its message unhandled and first, because this process stops."""
        if holding.close():
            holding.cancel()
            self._park(holding, 0)

    def _work(self, holding: Holding) -> None:
        quantum = Quantum(self._settings)
        begun = self._ledger.begin(holding, holding.lease.session_hint, taken_over=holding.lease.taken_over)
        while begun.outcome is BeginOutcome.TURN:
            settled = self._turn(holding, begun, quantum)
            if settled is None:
                return
            if settled.following is not None:
                holding.done.append(begun.message_id)
                begun = settled.following
                if holding.cancelled.is_set() or self._stopping.is_set() or not holding.is_open:
                    self._park(holding, 0)  # while it was committed the lease was lost, or we were told to stop
                    return
            elif self._finish(holding, begun, settled, may_go_on=self._may_go_on(holding, quantum)) is Released.GO_ON:
                begun = self._ledger.begin(holding, begun.session_id if settled.session_ms else None)
            else:
                return
        self._leave_without_turn(holding, begun)

    def _may_go_on(self, holding: Holding, quantum: "Quantum") -> bool:
        return not (quantum.is_used_up or holding.cancelled.is_set() or self._stopping.is_set())

    def _turn(self, holding: Holding, begun: Begun, quantum: "Quantum") -> Settled | None:
        """Handle one message and settle it; None when the lane is no longer ours, or must wait."""
        if begun.deaths < SUSPECT_AFTER_DEATHS:
            return self._handle_and_settle(holding, begun, quantum)
        with self._isolation.place() as has_place:
            if has_place:
                return self._handle_and_settle(holding, begun, quantum)
        self._park(holding, _jittered(SUSPECT_PAUSE_S))
        return None

    def _handle_and_settle(self, holding: Holding, begun: Begun, quantum: "Quantum") -> Settled | None:
        holding.turn, holding.is_leaving = begun, False
        name_turn(**_names(holding, begun))
        began = time.monotonic()
        handled = self._handle(holding, begun)
        was_told_to_stop = handled.failure is not None and holding.cancelled.is_set()
        if was_told_to_stop or not holding.is_open:
            TURNS.count("dropped")
            log.info("turn_dropped", turn_ms=_ms_since(began), **_names(holding, begun))
            return None
        quantum.turns_left -= 1
        if handled.failure is None:
            # A rate limit is Redis' to keep: it is asked after every turn.
            goes_on = self._may_go_on(holding, quantum) and not self._pace_ms(begun)
            settled = self._ledger.commit(holding, begun, handled.effects, goes_on=goes_on)
        else:
            settled = self._fail(holding, begun, handled.failure)
        holding.is_leaving = settled.following is None
        TURN_SECONDS.observe(time.monotonic() - began)
        if settled.outcome is CommitOutcome.COMMITTED:
            END_TO_END_SECONDS.observe(time.time() - begun.accepted_at.timestamp())
        log.info("turn_ended", outcome=settled.outcome, turn_ms=_ms_since(began), **_names(holding, begun))
        return settled

    def _handle(self, holding: Holding, begun: Begun) -> "Handled":
        """Run the handler, unless a human has the session or the message is a command."""
        if begun.session_status == "escalated":
            return Handled({})
        if (ending := self._ending(begun)) is not None:
            return Handled(ending)
        if begun.deaths >= DEATHS_PER_ATTEMPT:
            return Handled({}, f"{begun.deaths} workers died with this message in flight")
        holding.handling_since = time.monotonic()
        try:
            if begun.deaths >= SUSPECT_AFTER_DEATHS:
                return Handled(self._isolation.run(begun, holding, self._memory))
            return Handled(self._host.run(self._new_turn(holding, begun), holding))
        except HandlerFailed as error:
            return Handled({}, str(error))
        finally:
            holding.handling_since = None

    def _new_turn(self, holding: Holding, begun: Begun) -> Turn:
        return Turn(
            begun.message,
            User(holding.lease.user_id, begun.channel, begun.sender, begun.user_state),
            Session(begun.session_id, begun.session_started_at, begun.session_state),
            self._memory,
            holding.cancelled,
        )

    def _ending(self, begun: Begun) -> JsonObject | None:
        """Return what a message that ends the session does, or None for any other message."""
        channel = self._channel(begun)
        said = begun.text.strip().casefold()
        if channel is None or all(said != word.casefold() for word in channel.end_words):
            return None
        return {"end": "user_request", "replies": [{"text": channel.end_reply}] if channel.end_reply else []}

    def _fail(self, holding: Holding, begun: Begun, failure: str) -> Settled:
        settled = self._ledger.fail(holding, begun, failure)
        log.warning(
            "turn_failed",
            outcome=settled.outcome,
            attempts=settled.attempts,
            failure=failure,
            **_names(holding, begun),
        )
        if settled.outcome is CommitOutcome.DEAD:
            self._lanes.bury(holding.lease, begun.message_id, failure)
        return settled

    def _finish(self, holding: Holding, begun: Begun, settled: Settled, *, may_go_on: bool) -> Released:
        """Tell Redis what is done and what the lane does next."""
        if settled.outcome is CommitOutcome.FENCED:
            return Released.LOST
        if settled.outcome is CommitOutcome.RETRY:
            self._park(holding, backoff_s(self._settings, settled.attempts))
            return Released.RELEASED
        if settled.outcome in {CommitOutcome.COMMITTED, CommitOutcome.ALREADY}:
            holding.done.append(begun.message_id)
        return self._lanes.finish(
            holding.lease,
            holding.take_done(),
            may_go_on=may_go_on,
            more=settled.more,
            pause=settled.outcome is CommitOutcome.PAUSED,
            session_id=begun.session_id,
            session_ms=settled.session_ms,
            pace_ms=self._pace_ms(begun),
        )

    def _leave_without_turn(self, holding: Holding, begun: Begun) -> None:
        holding.is_leaving = True
        lease = holding.lease
        match begun.outcome:
            case BeginOutcome.PAUSED:
                self._lanes.finish(lease, holding.take_done(), pause=True)
            case BeginOutcome.FENCED:
                log.warning("begin_fenced", user_id=str(lease.user_id), fence=lease.fence, newer=begun.fence)
                self._lanes.raise_fence(begun.fence)
                self._park(holding, 0)
            case _:
                self._tidy(holding)

    def _tidy(self, holding: Holding) -> None:
        """Clear a lane on which nothing waits of jobs that are done; leave and report jobs that are not ours."""
        lease = holding.lease
        jobs = self._lanes.jobs(lease.user_id)
        states = self._ledger.states(lease.user_id, [job for job in jobs if _is_uuid(job)]) if jobs else []
        for row in states:
            if row.state == "dead":
                self._lanes.bury(lease, row.id, row.last_error or "")
        done = {str(row.id) for row in states if row.state == "processed"}
        still_there = set(self._lanes.jobs(lease.user_id)) if jobs else set()
        left = [job for job in jobs if job in still_there and job not in done]
        if foreign := len(set(jobs)) - len(states):
            log.warning("foreign_jobs", user_id=str(lease.user_id), jobs=foreign)
        is_waiting = any(row.state == "received" for row in states)
        self._lanes.finish(lease, sorted(done), more=is_waiting, foreign=len(left))

    def _park(self, holding: Holding, delay_s: float) -> None:
        holding.is_leaving = True
        try:
            self._lanes.park(holding.lease, delay_s, holding.take_done())
        except LanesUnavailable as error:
            log.warning("lane_left_to_its_lease", user_id=str(holding.lease.user_id), error=str(error))

    def _channel(self, begun: Begun) -> Channel | None:
        """Return the message's channel; None when it is configured no more."""
        return self._settings.channels.get(begun.channel)

    def _pace_ms(self, begun: Begun) -> int:
        channel = self._channel(begun)
        return MINUTE_MS // channel.rate_per_minute if channel and channel.rate_per_minute else 0


class Quantum:
    """What a lane may use of a slot before others have their turn."""

    def __init__(self, settings: Settings) -> None:
        self.turns_left = settings.quantum_turns
        # A lease that nobody asked about for longer than a renewal takes may have been lost.
        self._ends = time.monotonic() + min(settings.quantum_s, settings.lock_ttl_s / RENEWALS_PER_TTL)

    @property
    def is_used_up(self) -> bool:
        """Whether the lane goes to the end of the due order now."""
        return self.turns_left <= 0 or time.monotonic() >= self._ends


class Handled(NamedTuple):
    """A handler's effects, or why it failed."""

    effects: JsonObject
    failure: str | None = None


def backoff_s(settings: Settings, attempts: int) -> float:
    """Wait longer after every failure, up to a bound, and never in step with others."""
    return _jittered(min(settings.retry_max_s, settings.retry_base_s * 2 ** (attempts - 1)))


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1)  # noqa: S311 - nothing secret about it


def _ms_since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)


def _names(holding: Holding, begun: Begun) -> JsonObject:
    return {
        "user_id": str(holding.lease.user_id),
        "message_id": str(begun.message_id),
        "session_id": str(begun.session_id),
        "seq": begun.seq,
        "fence": holding.lease.fence,
    }


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
