"""The worker process: one RQ worker whose slots work one lane each, all on one event loop.

One thread a kind of lane leases for what is free, one renews, one keeps the registration, one watches for what is
overdue, one does the periodic duties; none of them waits for another. Signals only set a flag.
"""

import time
from dataclasses import dataclass
from typing import Final, NamedTuple

from onelane import keys, periodic
from onelane.config import Settings
from onelane.errors import EXIT_CONFIG
from onelane.garbage import keep_what_is_loaded
from onelane.lanes.keeper import Keeper
from onelane.lanes.lanes import Lanes
from onelane.periodic import Periodic, hopeless_task
from onelane.processes import interrupts
from onelane.processes.bell import Bell
from onelane.processes.dispatcher import Berths, Dispatcher, Permit
from onelane.processes.duties import ROUND_S, Duties
from onelane.processes.ending import Ending
from onelane.processes.eviction import Eviction
from onelane.processes.interrupts import Interrupts
from onelane.processes.registration import Registration
from onelane.processes.slots import Slots
from onelane.telemetry.log import event
from onelane.turns.loop import Blockage
from onelane.turns.workplace import Workplace

STOP_TICK_S = 0.25
DISPATCHERS_TICK_S: Final = 1.0
"""Between two looks whether a dispatcher has died or the grace is over. The watch sees sooner what is asked for."""
REGISTRATION_TICK_S = 2.5
WATCH_TICK_S = 0.25
LEAVING_S = 2.0
"""For the failures of stuck slots to be written, and lanes to be released, before their process ends."""
DISPATCHER_ENDS_S = 1.0
"""Both are counted from the end of the grace at most: within what ending takes."""
TASK_ENDS_S = 0.3
"""What comes after the tasks undoes what they do."""
EXIT_STUCK = 75


@dataclass(frozen=True)
class Crew:
    """Who works in a worker process beside its slots and shipments."""

    registration: Registration
    duties: Duties
    keeper: Keeper


class Work(NamedTuple):
    """One kind of lanes, and where they are worked."""

    lanes: Lanes
    berths: Berths


class Runner:
    """Runs one worker process until it is asked to stop."""

    def __init__(self, settings: Settings, workplace: Workplace, crew: Crew, slots: Slots, work: list[Work]) -> None:
        """`work` are the kinds of lanes that it works: in a burst, an earlier one's work may make a later one's due."""
        self._settings = settings
        self._registration = crew.registration
        self._keeper = crew.keeper
        self._stopping = workplace.stopping
        self.ending = Ending(settings)
        self._is_stuck = False
        """Whether this process was found unable to work; it ends, also if a handler returns after all."""
        self._loop, self._host = workplace.loop, workplace.handling.host
        self._slots = slots
        self._tasks = [
            Periodic("registration", self._keep_registered, REGISTRATION_TICK_S),
            Periodic("watch", self._watch, WATCH_TICK_S),
            Periodic("duties", crew.duties.round, ROUND_S),
        ]
        if interrupts.any_channel_interrupts(settings):
            looks = Interrupts(crew.registration.name, workplace.lanes, crew.keeper)
            self._tasks.append(Periodic("interrupts", looks.round, interrupts.ROUND_S))
        eviction = Eviction(workplace.lanes, is_allowed=settings.redis_may_evict)
        breaker = workplace.records.breaker
        permit = Permit(crew.registration, crew.keeper, breaker, eviction, workplace.stopping, settings.lock_ttl_s)
        self._dispatchers: list[Dispatcher] = []
        berths_of = {one.lanes.kind: one.berths for one in work}
        bell = Bell([one.lanes for one in work], lambda kind: berths_of[kind].free > 0)
        for lanes, berths in work:
            earlier = self._dispatchers[-1] if self._dispatchers else None
            self._dispatchers.append(Dispatcher(lanes, berths, bell, permit, after=earlier))

    def stop(self, *_: object) -> None:
        """Take no more lanes; end when the turns at hand have ended or their grace is over. A signal handler may."""
        self.ending.ask_for()

    def run(self, *, burst: bool = False) -> int:
        """Work until stopped (`burst`: until nothing is due) and return the exit code."""
        self._keeper.start(self._on_beat)
        keep_what_is_loaded()
        self.ending.put_off()  # a helper may need longer to start than a process may stall
        for task in self._tasks:
            task.start()
        kinds = [dispatcher.lanes.kind for dispatcher in self._dispatchers]
        event("worker_started", worker=self._registration.name, kinds=kinds, slots=self._settings.worker_slots)
        for dispatcher in self._dispatchers:
            dispatcher.start(burst=burst)
        self._await_dispatchers()
        if not all(dispatcher.has_ended for dispatcher in self._dispatchers):
            self._end_hopeless("dispatcher")  # unless it was to end: then it died, of what is no Exception
        return self._shut_down()

    def _await_dispatchers(self) -> None:
        """Wait until all have ended, one has died, or the grace is over."""
        while (left_s := self.ending.grace_ends_at + DISPATCHER_ENDS_S - time.monotonic()) > 0:
            working = [dispatcher for dispatcher in self._dispatchers if dispatcher.is_alive]
            if not working or any(dispatcher.has_died for dispatcher in self._dispatchers):
                return
            working[0].join(min(DISPATCHERS_TICK_S, left_s))
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        """Let nobody lease any more. An idle dispatcher's wait ends; whoever else is woken finds nothing new."""
        if self.ending.is_asked_for:
            self._stopping.set()
        if self._stopping.is_set():
            for dispatcher in self._dispatchers:
                if dispatcher.is_alive:
                    dispatcher.lanes.pass_wake_on_soon()

    def _keep_registered(self) -> None:
        leases = [holding.lease for holding in self._keeper.holdings]
        self._registration.beat([keys.queue_name(lease.user_id, lease.kind) for lease in leases])

    def _watch(self) -> None:
        """Give up slots that are stuck. With every slot stuck, or an event loop blocked, the process is replaced."""
        self._stop_if_asked()
        if not self._loop.ask() and self._loop.missed * WATCH_TICK_S > periodic.LIMIT_S:
            self._end_hopeless("shifts")
        for dispatcher in self._dispatchers:
            dispatcher.berths.give_up_overdue()
            if dispatcher.berths.are_all_stuck and not self._is_stuck:
                event("worker_stuck", kind=dispatcher.lanes.kind)
                self._replace()
        blockage = self._host.beat()
        if blockage and blockage.beats * WATCH_TICK_S >= self._settings.loop_stall_limit_s:
            self._leave_loop(blockage)

    def _leave_loop(self, blockage: Blockage) -> None:
        """Give back what waits for the event loop, at every beat until the process has ended: no grace helps it."""
        turn, blocked_s = blockage.turn, blockage.beats * WATCH_TICK_S
        if not self._is_stuck:
            names = {"user_id": turn.user.id, "message_id": turn.message.id} if turn else {}
            event("loop_blocked", blocked_s=blocked_s, stack=blockage.stack, **names)
            self._replace()
        self._slots.leave_loop(blockage, blocked_s)

    def _replace(self) -> None:
        """End this process so that another one begins: what hangs in it cannot be ended otherwise."""
        self._is_stuck = True
        self._stopping.set()
        self.stop()

    def _on_beat(self) -> None:
        self.ending.put_off()
        hangs = any(dispatcher.hangs for dispatcher in self._dispatchers)
        if task := "dispatcher" if hangs else hopeless_task():
            self._end_hopeless(task)

    def _end_hopeless(self, task: str) -> None:
        if not self._stopping.is_set():
            event("worker_hopeless", task=task)
            self._replace()

    def _shut_down(self) -> int:
        self._stopping.set()
        self.stop()  # the grace begins now, unless it has
        event("worker_stopping", lanes=len(self._keeper.holdings))
        while self._keeper.holdings and time.monotonic() < self.ending.grace_ends_at:
            time.sleep(STOP_TICK_S)
        for dispatcher in self._dispatchers:
            dispatcher.berths.hand_back()
        leaving_ends = min(time.monotonic(), self.ending.grace_ends_at) + LEAVING_S
        for dispatcher in self._dispatchers:
            dispatcher.berths.await_left(max(0.0, leaving_ends - time.monotonic()))
        for task in self._tasks:
            task.stop(TASK_ENDS_S)
        self._keeper.stop()
        self.ending.put_off()
        self.ending.while_there_is_time(self._registration.withdraw)
        event("worker_stopped", worker=self._registration.name)
        if self._is_stuck:
            return EXIT_STUCK
        return EXIT_CONFIG if any(dispatcher.is_refused for dispatcher in self._dispatchers) else 0
