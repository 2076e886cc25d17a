"""The worker process: one RQ worker whose slots work one lane each, all on one event loop.

One thread leases for all free slots, one renews, one keeps the registration, one watches for overdue turns, one does
the periodic duties; none of them waits for another. Signals only set a flag.
"""

import threading
import time
from dataclasses import dataclass
from math import inf

from onelane import keys, periodic
from onelane.config import Settings
from onelane.errors import EXIT_CONFIG, LanesForeign, LanesUnavailable, describe
from onelane.lanes.keeper import Keeper
from onelane.lanes.lanes import Lanes
from onelane.lanes.leased import Leased
from onelane.periodic import Periodic, hopeless_task
from onelane.processes.duties import ROUND_S, Duties
from onelane.processes.ending import Ending
from onelane.processes.eviction import Eviction
from onelane.processes.registration import Registration
from onelane.processes.slots import Slots
from onelane.telemetry.log import event
from onelane.turns.loop import Blockage
from onelane.turns.workplace import Workplace

LEASED_MAX = 500
"""Lanes in one call: Redis does nothing else meanwhile."""
IDLE_WAIT_MAX_S = 2.0
"""Less than what is waited for an answer of Redis: it says nothing meanwhile."""
SUSPENDED_TICK_S = 0.1
BUSY_WAIT_MAX_S = 0.5
GATHERED_S = 0.002
"""When all slots were taken and one becomes free, others do: one call leases for them."""
STOP_TICK_S = 0.25
OUTAGE_PAUSE_S = 0.5
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
    """Who works in a worker process beside its slots."""

    registration: Registration
    duties: Duties
    keeper: Keeper


class Runner:
    """Runs one worker process until it is asked to stop."""

    def __init__(self, settings: Settings, lanes: Lanes, workplace: Workplace, crew: Crew) -> None:
        self._settings = settings
        self._lanes = lanes
        self._registration = crew.registration
        self._keeper = crew.keeper
        self._stopping = workplace.stopping
        self._breaker = workplace.records.breaker
        self._eviction = Eviction(lanes, is_allowed=settings.redis_may_evict)
        self.ending = Ending(settings)
        self._exit_code = 0
        self._is_stuck = False
        """Whether this process was found unable to work; it ends, also if a handler returns after all."""
        self._loop, self._host = workplace.loop, workplace.handling.host
        self._slots = Slots(settings.worker_slots, workplace)
        self._tasks = (
            Periodic("registration", self._keep_registered, REGISTRATION_TICK_S),
            Periodic("watch", self._watch, WATCH_TICK_S),
            Periodic("duties", crew.duties.round, ROUND_S),
        )
        self._lease_calls = 0
        self._outage: str | None = None
        """Why the last call failed; only the dispatcher writes it."""
        self._leasing_since = inf
        """When the dispatcher, which is no periodic task, began its last round."""

    def stop(self, *_: object) -> None:
        """Take no more lanes; end when the turns at hand have ended or their grace is over. A signal handler may."""
        self.ending.ask_for()

    def run(self, *, burst: bool = False) -> int:
        """Work until stopped (`burst`: until nothing is due) and return the exit code."""
        self._keeper.start(self._on_beat)
        self.ending.put_off()  # a helper may need longer to start than a process may stall
        for task in self._tasks:
            task.start()
        event("worker_started", worker=self._registration.name, slots=self._settings.worker_slots)
        dispatcher = threading.Thread(target=self._dispatch, kwargs={"burst": burst}, name="dispatcher", daemon=True)
        dispatcher.start()
        while dispatcher.is_alive() and time.monotonic() < self.ending.grace_ends_at + DISPATCHER_ENDS_S:
            dispatcher.join(STOP_TICK_S)
            if self.ending.is_asked_for:
                self._stopping.set()
            if self._stopping.is_set():  # an idle dispatcher's wait ends; whoever else is woken finds nothing new
                self._lanes.pass_wake_on_soon()
        self._end_hopeless("dispatcher")  # unless it was to end: then it died, of what is no Exception
        return self._shut_down()

    def _dispatch(self, *, burst: bool) -> None:
        """Lease whatever is due for all free slots, again and again."""
        while not self._stopping.is_set():
            self._leasing_since = time.monotonic()
            free = min(self._slots.free, LEASED_MAX)
            if self._registration.is_suspended or not self._keeper.can_renew:
                self._stopping.wait(SUSPENDED_TICK_S)
                continue
            if free == 0:
                self._slots.freed.wait(BUSY_WAIT_MAX_S)
                self._slots.freed.clear()
                self._stopping.wait(GATHERED_S)
                continue
            try:
                if not (self._breaker.lets_lease() and self._eviction.lets_lease()):
                    self._stopping.wait(SUSPENDED_TICK_S)
                    continue
                leased = self._lease(free)
                if burst and not leased.leases and self._slots.are_idle:
                    self._stopping.set()
                    return
                if len(leased.leases) < free:  # all that was due; the answer holds when the next will be
                    self._wait_for_work(leased.next_due_s)
            except LanesForeign as error:
                self._leave_redis(error)
            except LanesUnavailable as error:
                self._note_outage(str(error))
                self._stopping.wait(OUTAGE_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - without this thread the process would live and do nothing
                event("task_failed", task="dispatcher", failure=describe(error))
                self._stopping.wait(OUTAGE_PAUSE_S)

    def _lease(self, free: int) -> Leased:
        """Lease for free slots in one call. A call whose answer was lost is asked again by its number."""
        leased = self._lanes.lease(self._registration.name, self._lease_calls, free, self._settings.lock_ttl_s)
        self._lease_calls += 1
        self._outage = None
        self._slots.start(self._keeper.hold(leased.leases))
        return leased

    def _note_outage(self, error: str) -> None:
        """Log an outage when it begins, and whenever its reason is another."""
        if error != self._outage:
            event("lease_failed", error=error)
        self._outage = error

    def _wait_for_work(self, next_due_s: float | None) -> None:
        wait_s = IDLE_WAIT_MAX_S if next_due_s is None else min(IDLE_WAIT_MAX_S, next_due_s)
        was_woken = wait_s > 0 and self._lanes.wait_for_wake(wait_s)
        if was_woken and (self._stopping.is_set() or self._registration.is_suspended):
            self._lanes.pass_wake_on()

    def _keep_registered(self) -> None:
        self._registration.beat([keys.queue_name(holding.lease.user_id) for holding in self._keeper.holdings])

    def _leave_redis(self, error: LanesForeign) -> None:
        """End for good: Redis was swapped for one of another deployment, and another process would find the same."""
        event("worker_refused", error=str(error))
        self._exit_code = EXIT_CONFIG
        self._stopping.set()

    def _watch(self) -> None:
        """Give up slots that are stuck. With every slot stuck, or an event loop blocked, the process is replaced."""
        if not self._loop.ask() and self._loop.missed * WATCH_TICK_S > periodic.LIMIT_S:
            self._end_hopeless("shifts")
        self._slots.give_up_overdue()
        if self._slots.are_all_stuck and not self._is_stuck:
            event("worker_stuck", slots=self._settings.worker_slots)
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
        hangs = time.monotonic() - self._leasing_since > periodic.LIMIT_S
        if task := "dispatcher" if hangs else hopeless_task():
            self._end_hopeless(task)

    def _end_hopeless(self, task: str) -> None:
        if not self._stopping.is_set():
            event("worker_hopeless", task=task)
            self._replace()

    def _shut_down(self) -> int:
        self.stop()  # the grace begins now, unless it has
        event("worker_stopping", lanes=len(self._keeper.holdings))
        while self._keeper.holdings and time.monotonic() < self.ending.grace_ends_at:
            time.sleep(STOP_TICK_S)
        self._slots.hand_back()
        self._slots.await_left(min(LEAVING_S, self.ending.grace_ends_at + LEAVING_S - time.monotonic()))
        for task in self._tasks:
            task.stop(TASK_ENDS_S)
        self._keeper.stop()
        self.ending.put_off()
        self.ending.while_there_is_time(self._registration.withdraw)
        event("worker_stopped", worker=self._registration.name)
        return EXIT_STUCK if self._is_stuck else self._exit_code
