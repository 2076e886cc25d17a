"""One worker's work on one user's replies, from the lease to its release: mark, send, settle; and again.

A request begins only under a mark that Postgres has committed just now, under our fence: whoever finds the mark later
counts from it when the request was over. Whatever the answer is, it is stored, also when the lease is lost meanwhile:
the fence guards the start of a request, never what is known of one.
"""

import time
from typing import Final
from uuid import UUID

import psycopg

from onelane.channels.sending import Outgoing
from onelane.channels.verdicts import Verdict, Word
from onelane.errors import LanesUnavailable, StoreRefused, StoreUnavailable
from onelane.lanes.holding import Holding
from onelane.outbox import limits, notes, settling
from onelane.outbox.reply import BeginOutcome, Begun, Deed, Fate, Settled, SettleOutcome, Waiting, handed_back, never
from onelane.outbox.settling import Act, Step
from onelane.outbox.stages import Stage, Stay
from onelane.outbox.uploading import made_ready
from onelane.outbox.workplace import Way, Workplace
from onelane.telemetry.log import event
from onelane.turns.answers import answered
from onelane.turns.idle import give_way, release_idle
from onelane.turns.pacing import Quantum

STARTS_WITHIN_S: Final = 4.0
"""After its mark: the rest of `settling.ENDS_SLACK_S` is for what a clock may be wrong."""
MISSING_PAUSE_S: Final = 60.0
"""How long replies wait for a channel that this process does not have, until another may have it."""


class Shipment:
    """Sends one leased lane's replies, until none is left, one must wait, or it has had its quantum."""

    def __init__(self, holding: Holding, workplace: Workplace) -> None:
        self.holding = holding
        self.lease = holding.lease
        self.is_given_up = False
        self.stay = Stay(Stage.BEGIN, workplace.loop.clock())
        self._workplace = workplace
        self._lanes, self._records = workplace.lanes, workplace.records
        self._quantum = Quantum(workplace.settings)
        self._done: list[UUID] = []
        """Replies that left the outbox under this lease, and still have a job in Redis."""
        self._files_of: dict[UUID, Verdict | None] = {}
        """Replies whose files were handed over under this lease, or why they were not."""

    async def run(self) -> None:
        """Send the lane's replies."""
        try:
            await self._work()
        except StoreUnavailable as error:
            event("send_postponed", user_id=self.lease.user_id, error=str(error))
            is_away = self._records.breaker.is_open
            await self.park(0 if is_away else self._workplace.outages.pause_s(self.lease.user_id))
        except (StoreRefused, psycopg.Error) as error:
            event("send_impossible", user_id=self.lease.user_id, sqlstate=error.sqlstate)
            await self.park(self._workplace.outages.pause_s(self.lease.user_id))
        except LanesUnavailable as error:
            event("lanes_unavailable", user_id=self.lease.user_id, error=str(error))

    async def park(self, delay_s: float) -> None:
        """Release the lane until later; what is marked then is found to be unknown, unless it was handed back."""
        self.holding.is_leaving = True
        self._enter(Stage.LEAVE)
        try:
            await answered(self._lanes.park_soon(self.lease, delay_s, self._take_done()))
        except LanesUnavailable as error:
            event("lane_left_to_its_lease", user_id=self.lease.user_id, error=str(error))

    async def _work(self) -> None:
        full = self._workplace.shares.full
        begun: Begun | None = await self._records.begin(self.lease, self.holding.cancelled, full)
        while begun is not None:
            begun = await self._work_off(begun)

    async def _work_off(self, begun: Begun) -> Begun | None:
        """Do what begin says, and return what was begun next; None when the lane is released, or no longer ours."""
        reply = begun.reply
        if reply is None or begun.outcome not in {BeginOutcome.SEND, BeginOutcome.UNKNOWN}:
            await self._leave_without_reply(begun)
            return None
        if reply.channel not in self._workplace.ways:
            self._workplace.circuits.note_missing(reply.channel)
            return await self._wait(begun, MISSING_PAUSE_S)
        way = self._workplace.ways[reply.channel]
        if way is None:
            return await self._settle(reply, Fate(Deed.WITHHOLD, Word.NO_ROUTE))
        with self._workplace.shares.place(reply.channel, self.lease.user_id) as has_place:
            if not has_place:
                return await self._wait(begun, self._workplace.without_place_s(reply.channel, self.lease.user_id))
            if begun.outcome is BeginOutcome.SEND and self._must_upload(reply, way):
                return await self._upload(reply, way)
            if begun.outcome is BeginOutcome.UNKNOWN:
                step = await self._find_out(reply, way)
            else:
                step = Step(Act.SETTLE, fate=await self._send(reply, way))
        return await (self._settle(reply, step.fate) if step.fate else self._wait(begun, step.wait_s))

    async def _send(self, reply: Waiting, way: Way) -> Fate:
        """Make the request that is marked, unless it may not begin any more."""
        if way.is_closed_for(reply):
            return never(Word.WINDOW_CLOSED)
        if verdict := self._files_of.get(reply.id):
            return limits.fate_of(reply, verdict, self._workplace.settings.send_give_up_s)
        out = await self._with_files(reply, way)
        if isinstance(out, Fate):
            return out
        if self._is_to_stop or reply.seconds_since(reply.sending_at) > STARTS_WITHIN_S:
            return handed_back(0)
        self._enter(Stage.SEND)
        began = time.monotonic()
        with notes.request("send", way.provider, reply, self.lease) as span:
            verdict = await way.sending.send(out)
            notes.answered(span, verdict, time.monotonic() - began)
        return limits.fate_of(reply, verdict, self._workplace.settings.send_give_up_s)

    def _must_upload(self, reply: Waiting, way: Way) -> bool:
        return reply.has_files and way.sending.sender.uploads and reply.id not in self._files_of

    async def _upload(self, reply: Waiting, way: Way) -> Begun | None:
        """Hand a reply's files over, under no mark: who dies of that leaves no doubt about the reply. Then mark it."""
        self._enter(Stage.SETTLE)
        await self._records.settle(self.lease, reply, handed_back(0), goes_on=False)
        self._enter(Stage.SEND)
        ready = await made_ready(way.outgoing(reply), way.sending, self._records)
        self._files_of[reply.id] = ready if isinstance(ready, Verdict) else None
        self._enter(Stage.BEGIN)
        return await self._records.begin(self.lease, self.holding.cancelled)

    async def _with_files(self, reply: Waiting, way: Way) -> Outgoing | Fate:
        """Describe the request, with what its files are by now."""
        out = way.outgoing(reply)
        if not reply.has_files:
            return out
        try:
            ready = await made_ready(out, way.sending, self._records)
        except StoreUnavailable:
            return handed_back(self._workplace.outages.pause_s(self.lease.user_id))
        if isinstance(ready, Verdict):
            return limits.fate_of(reply, ready, self._workplace.settings.send_give_up_s)
        return ready

    async def _find_out(self, reply: Waiting, way: Way) -> Step:
        """Decide about a reply whose last request may have arrived; ask its provider, if it can be asked."""
        others = await self._records.others(self.lease, reply)
        steps = way.sending.sender.look_up(way.outgoing(reply), reply.sending_at, others)
        now = reply.time()
        step = settling.first_step(reply, way.rules, now, can_ask=steps is not None)
        if step.act is not Act.ASK or steps is None:
            return step
        if self._is_to_stop:
            return Step(Act.WAIT)
        self._enter(Stage.ASK)
        with notes.request("look_up", way.provider, reply, self.lease) as span:
            verdict, wait_s = await way.sending.look_up(steps)
            notes.looked_up(span, verdict)
        return settling.after_look_up(reply, way.rules, verdict, now, wait_s)

    async def _settle(self, reply: Waiting, fate: Fate) -> Begun | None:
        """Store what becomes of a reply; return what was marked next."""
        self._enter(Stage.SETTLE)
        self._quantum.turns_left -= 1
        goes_on = not (self._quantum.is_used_up or self._is_to_stop)
        settled = await self._records.settle(self.lease, reply, fate, goes_on=goes_on)
        self._workplace.outages.are_over(self.lease.user_id)
        self._workplace.circuits.note(reply.channel, fate, settled.state)
        notes.settled(reply, self.lease, fate, settled)
        if settled.is_terminal(fate):
            await self._note_done(reply, fate, settled)
        if settled.next is not None:
            self._enter(Stage.BEGIN)
            return settled.next
        await self._leave(fate, settled)
        return None

    async def _note_done(self, reply: Waiting, fate: Fate, settled: Settled) -> None:
        if settled.state == "failed":
            self._workplace.telling.soon()
            await answered(self._lanes.bury_soon(self.lease, reply.id, str(fate.word or "failed")))
        else:
            self._done.append(reply.id)

    async def _leave(self, fate: Fate, settled: Settled) -> None:
        """Release the lane after a reply, with nothing begun."""
        if settled.outcome is SettleOutcome.FENCED:
            return  # it is another's
        if settled.is_terminal(fate):
            self.holding.is_leaving = True
            self._enter(Stage.LEAVE)
            await answered(self._lanes.finish_soon(self.lease, self._take_done(), has_more=settled.has_more))
        else:
            await self.park(fate.wait_s or 0)

    async def _leave_without_reply(self, begun: Begun) -> None:
        match begun.outcome:
            case BeginOutcome.WAIT | BeginOutcome.HELD:
                wait_s = (begun.wait_ms or 0) / 1000
                if begun.outcome is BeginOutcome.HELD and begun.channel is not None:
                    self._workplace.postponing.soon(begun.channel, lambda _user, _workers: limits.later(wait_s))
                await self.park(limits.later(wait_s))
            case BeginOutcome.FULL if begun.channel is not None:
                await self.park(self._workplace.without_place_s(begun.channel, self.lease.user_id))
            case BeginOutcome.FENCED:
                await give_way(self._lanes, self.lease, begun.fence)
                await self.park(0)
            case _:
                self.holding.is_leaving = True
                self._enter(Stage.LEAVE)
                if done := self._take_done():
                    await answered(self._lanes.finish_soon(self.lease, done))
                else:
                    await release_idle(self._lanes, self._records, self.lease)

    async def _wait(self, begun: Begun, wait_s: float) -> Begun | None:
        """Let the lane wait. A mark under which nothing was begun is taken back."""
        if begun.outcome is BeginOutcome.SEND and begun.reply is not None:
            self._quantum.turns_left = 0
            return await self._settle(begun.reply, handed_back(wait_s))
        await self.park(limits.later(wait_s))
        return None

    @property
    def _is_to_stop(self) -> bool:
        """Whether the lease was lost or given up, or the process stops."""
        is_ours = self.holding.is_open and not self.holding.cancelled.is_set()
        return not is_ours or self._workplace.stopping.is_set()

    def _enter(self, stage: Stage) -> None:
        self.stay = Stay(stage, self._workplace.loop.clock())

    def _take_done(self) -> list[UUID]:
        """Return the replies whose jobs are to be removed now, once."""
        done, self._done = self._done, []
        return done
