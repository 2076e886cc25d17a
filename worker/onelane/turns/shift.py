"""One worker's turns on one lane, from the lease to its release: begin, handle, commit, finish; and again.

Postgres is asked what to do next and what was done is stored there; while a lane goes on, both in one call. Redis
learns of it afterwards, once a lease. Between begin and commit no connection is held. A fenced turn is dropped.
"""

import time
from contextlib import nullcontext
from functools import partial

import psycopg

from onelane.errors import IsolationBroken, LanesUnavailable, OnelaneError, StoreRefused, StoreUnavailable, kind_of
from onelane.lanes.holding import Holding
from onelane.lanes.releases import Released
from onelane.model import Failure, JsonObject, TurnRead
from onelane.outcomes import BeginOutcome, Begun, Settled, SettleOutcome
from onelane.telemetry import tracing
from onelane.telemetry.log import event, ms_since, name_turn
from onelane.telemetry.numbers import END_TO_END_SECONDS, TURN_SECONDS, TURNS
from onelane.turns.answers import answered
from onelane.turns.ended import EndedTurns
from onelane.turns.handler_threads import LeaseThread
from onelane.turns.handling import Handled, is_suspect
from onelane.turns.idle import give_way, release_idle
from onelane.turns.memory import TurnMemory
from onelane.turns.pacing import OUTAGE_PAUSE_S, SUSPECT_PAUSE_S, Quantum, jittered, pause_s
from onelane.turns.stages import Stage, Stay
from onelane.turns.workplace import Workplace


class Shift:
    """Works one leased lane off, until it is empty, must wait, or has had its quantum.

    All shifts run on one loop, and so do `give_up`, which the watch asks for, and `hand_back`: `Holding.close` settles
    who decides how the lease ends. The watch reads `stay` from its own thread; it is compared once more.
    """

    def __init__(self, holding: Holding, workplace: Workplace, *, runs_apart: bool = False) -> None:
        """With `runs_apart`, handlers run in a child: a thread of the user's hangs in this process."""
        self.holding = holding
        self.lease = holding.lease
        self.thread = LeaseThread(workplace.threads)
        self.stay = Stay(Stage.BEGIN, workplace.handling.host.clock())
        self.is_given_up = False
        """Whether it was somewhere for too long; it may be there still."""
        self._runs_apart = runs_apart
        self._workplace = workplace
        self._lanes, self._records, self._handling = workplace.lanes, workplace.records, workplace.handling
        self._quantum = Quantum(workplace.settings)
        self._has_begun, self._pace_ms = False, 0
        self._turns_run = int(holding.lease.taken_over)  # that of a holder that died in it counts as well
        self._ended = EndedTurns(workplace.out_lanes, self.lease.user_id)

    async def run(self) -> None:
        """Run the lane's turns."""
        try:
            await self._work()
        except StoreUnavailable as error:
            await self._sit_out(error)
        except (StoreRefused, psycopg.Error) as error:
            # The database's fault, not the message's: no attempt, and the lease is given back, which is no death.
            event("turn_impossible", user_id=self.lease.user_id, sqlstate=error.sqlstate)
            await self._park(self._workplace.outages.pause_s(self.lease.user_id))
        except IsolationBroken as error:
            event("suspect_postponed", user_id=self.lease.user_id, failure=str(error))
            await self._park(jittered(OUTAGE_PAUSE_S))
        except LanesUnavailable as error:  # the lease runs out by itself, and Postgres knows what is done
            event("lanes_unavailable", user_id=self.lease.user_id, error=str(error))
        finally:
            self.thread.end()
            await self._ended.answered()

    async def give_up(self, stay: Stay, why: str | StoreUnavailable) -> None:
        """End the lease of a slot that is stuck at `stay`. Whatever it still does will be dropped.

        In the handler, that is a failed attempt of its message, which runs apart from now on; unless it is an outage.
        """
        if self.is_given_up or self.stay is not stay:
            return
        self.is_given_up = True
        event("slot_stuck", stage=stay.stage, user_id=self.lease.user_id)
        if not self.holding.close():
            return
        self.holding.cancel()
        if isinstance(why, StoreUnavailable):
            await self._sit_out(why)
        elif (turn := stay.batch) is None:
            await self._park(jittered(OUTAGE_PAUSE_S))
        else:
            try:
                settled = await self._fail(turn, Failure(error=why, is_suspect=True))
                self._ended.note(turn, settled)
                await self._release(turn, settled)
            except (OnelaneError, psycopg.Error) as error:
                event("lane_left_to_its_lease", user_id=self.lease.user_id, error=kind_of(error))

    async def hand_back(self) -> None:
        """Release the lane at once, its message unhandled and first, because this process stops."""
        if self.holding.close():
            self.holding.cancel()
            await self._park(0)

    async def _work(self) -> None:
        begun: Begun | None = await self._records.begin(self.lease, self.lease.session_hint, is_first=True)
        self._has_begun = True
        while begun is not None and begun.turn is not None:
            begun = await self._work_off(begun.turn)
        if begun is not None:
            await self._leave_without_turn(begun)

    async def _work_off(self, turn: TurnRead) -> Begun | None:
        """Work one batch off, and return what was begun next; None when the lane is released, or no longer ours."""
        if self.holding.cancelled.is_set():
            return None  # its begin was answered too late
        is_apart = self._runs_apart or is_suspect(turn)
        place = self._handling.isolation.place() if is_apart else nullcontext(True)
        with tracing.working_off(turn, self.lease.fence), place as has_place:
            if not has_place:
                await self._park(jittered(SUSPECT_PAUSE_S))
                return None
            settled = await self._handle_and_settle(turn, is_apart=is_apart)
            if settled is not None and settled.failure is not None:
                turn = turn.model_copy(update={"failure": settled.failure})
                settled = await self._handle_and_settle(turn, is_apart=is_apart)
        return None if settled is None else await self._go_on(turn, settled)

    async def _handle_and_settle(self, turn: TurnRead, *, is_apart: bool) -> Settled | None:
        """Run the handler and store what came of it; None when the turn is dropped."""
        self.holding.is_leaving = False
        name_turn(**turn.names(self.lease.fence))
        began = time.monotonic()
        self._turns_run += 1
        self._pace_ms = self._handling.pace_ms(turn)
        memory = self._handling.memory(turn, self.holding, partial(self._records.hold, self.holding.cancelled))
        self._enter(Stage.APART if is_apart else Stage.HANDLE, turn, memory)
        turn, handled = await self._handling.run(turn, self.holding, memory, self.thread, is_apart=is_apart)
        self._enter(Stage.COMMIT)
        if not self.holding.is_open or (handled.failure and self.holding.cancelled.is_set()):
            TURNS.count("dropped")
            event("turn_dropped", turn_ms=ms_since(began), **turn.names(self.lease.fence))
            return None
        self._quantum.turns_left -= 1
        settled = await self._settle(turn, handled)
        self._ended.note(turn, settled)
        self._workplace.outages.are_over(self.lease.user_id)
        if settled.failure is not None:
            return settled  # that is no end yet
        self.holding.is_leaving = settled.next is None
        TURN_SECONDS.observe(time.monotonic() - began)
        if settled.outcome is SettleOutcome.COMMITTED:
            END_TO_END_SECONDS.observe(time.time() - turn.message.accepted_at.timestamp())
        event("turn_ended", outcome=settled.outcome, turn_ms=ms_since(began), **turn.names(self.lease.fence))
        return settled

    async def _settle(self, turn: TurnRead, handled: Handled) -> Settled:
        if turn.failure is not None:
            return await self._fail(turn, turn.failure, None if handled.failure else handled.effects)
        if handled.failure is not None:
            return await self._fail(turn, handled.failure, asks=self._handling.bots.answers_failures(turn))
        # A rate limit is kept in Redis: with one, the lane goes on only after Redis was asked.
        more = not (self._quantum.is_used_up or self._is_to_stop or self._pace_ms)
        try:
            return await self._records.commit(self.lease, turn, handled.effects, self.holding.cancelled, goes_on=more)
        except StoreRefused as error:
            self._enter(Stage.COMMIT)  # that is kept as long once more
            why = f"Postgres refuses what the handler returned or saved (SQLSTATE {error.sqlstate})"
            return await self._fail(turn, Failure(error=why), asks=self._handling.bots.answers_failures(turn))

    async def _fail(
        self, turn: TurnRead, failure: Failure, effects: JsonObject | None = None, *, asks: bool = False
    ) -> Settled:
        settled = await self._records.fail(self.lease, turn, failure, self.holding.cancelled, effects, asks=asks)
        if settled.outcome is SettleOutcome.DEAD:
            await answered(self._lanes.bury_soon(self.lease, turn.message.id, failure.error))
        return settled

    async def _go_on(self, turn: TurnRead, settled: Settled) -> Begun | None:
        """Take the next turn if the lane goes on; else release it."""
        if settled.next is not None:
            if not self._is_to_stop:
                return settled.next
            await self._park(0)
            return None
        if await self._release(turn, settled) is not Released.GO_ON:
            return None
        self._enter(Stage.BEGIN)
        return await self._records.begin(self.lease, turn.session.id if settled.session_ms else None, is_first=False)

    @property
    def _is_to_stop(self) -> bool:
        """Whether the lease was lost or given up, or the process stops."""
        return self.holding.cancelled.is_set() or self._workplace.stopping.is_set()

    async def _release(self, turn: TurnRead, settled: Settled) -> Released:
        """Turn the outcome into what Redis does with the lane: the only place that does."""
        match settled.outcome:
            case SettleOutcome.FENCED:
                return Released.LOST
            case SettleOutcome.STALE | SettleOutcome.SUPERSEDED | SettleOutcome.RETRY | SettleOutcome.LATER:
                await self._park(pause_s(self._workplace.settings, settled))
                return Released.RELEASED
        self._enter(Stage.FINISH)
        finished = self._lanes.finish_soon(
            self.lease,
            self._ended.take_done(),
            may_go_on=not (self._quantum.is_used_up or self._is_to_stop),
            has_more=settled.has_more,
            pause=settled.outcome is SettleOutcome.PAUSED,
            session_id=turn.session.id,
            session_ms=settled.session_ms,
            pace_ms=self._pace_ms,
            runs=self._turns_run,
        )
        return await answered(finished)

    async def _leave_without_turn(self, begun: Begun) -> None:
        self.holding.is_leaving = True
        self._enter(Stage.FINISH)
        match begun.outcome:
            case BeginOutcome.PAUSED:
                self._ended.make_due(begun.outbox)
                await answered(self._lanes.finish_soon(self.lease, self._ended.take_done(), pause=True))
            case BeginOutcome.FENCED:
                await give_way(self._lanes, self.lease, begun.fence)
                await self._park(0)
            case BeginOutcome.AGAIN:  # by a later lease, so that others have their turn
                await self._park(0)
            case _:  # who committed the replies may have died before it let their lane know
                self._ended.make_due(begun.outbox)
                await release_idle(self._lanes, self._records, self.lease)

    async def _sit_out(self, outage: StoreUnavailable) -> None:
        """Park the lane for an outage; one that a worker which is cut off hands back, another may take at once."""
        event("store_unavailable", user_id=self.lease.user_id, error=str(outage))
        await self._park(0 if self._records.breaker.is_open else self._workplace.outages.pause_s(self.lease.user_id))

    async def _park(self, delay_s: float) -> None:
        self.holding.is_leaving = True
        self._enter(Stage.PARK)
        try:
            done, pace = self._ended.take_done(), {"pace_ms": self._pace_ms, "runs": self._turns_run}
            await answered(self._lanes.park_soon(self.lease, delay_s, done, has_begun=self._has_begun, **pace))
        except LanesUnavailable as error:
            event("lane_left_to_its_lease", user_id=self.lease.user_id, error=str(error))

    def _enter(self, stage: Stage, turn: TurnRead | None = None, memory: TurnMemory | None = None) -> None:
        """Be at another stage now; once the lease is closed, `stay` shows where the slot was then."""
        if self.holding.is_open:
            self.stay = Stay(stage, self._handling.host.clock(), turn, memory)
