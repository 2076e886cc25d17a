"""The worker process: one RQ worker whose threads, its slots, work one lane each.

One thread leases for all free slots, one renews, one keeps the registration, one watches for overdue turns, one does
the periodic duties; none of them waits for another. Signals only set an event.
"""

import faulthandler
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from worker import keys
from worker.config import Settings
from worker.counters import TAKEOVERS, counters
from worker.errors import LanesUnavailable
from worker.failure import describe
from worker.lanes import Lanes, Leased
from worker.lock import Holding, Keeper
from worker.presence import Presence
from worker.recovery import ROUND_S, Recovery
from worker.telemetry import log
from worker.turns import Turns

REDIS_TIMEOUT_S = 3
"""What a worker waits for Redis before it calls it away."""
IDLE_WAIT_MAX_S = 1.0
SUSPENDED_TICK_S = 0.1
BUSY_WAIT_MAX_S = 0.5
STOP_TICK_S = 0.1
OUTAGE_PAUSE_S = 0.5
PRESENCE_TICK_S = 1.0
WATCH_TICK_S = 0.25
OVERDUE_GRACE_S = 1.0
"""An async handler is cancelled by its host first; a thread that hangs is given up after this."""
STDERR_FD = 2
EXIT_STUCK = 75


class Runner:
    """Runs one worker process until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        lanes: Lanes,
        waker: Lanes,
        presence: Presence,
        turns: Turns,
        recovery: Recovery,
        keeper: Keeper,
        stopping: threading.Event,
    ) -> None:
        """`waker` are the lanes over a connection that may block; `turns` watches `stopping` too."""
        self._settings = settings
        self._lanes = lanes
        self._waker = waker
        self._presence = presence
        self._turns = turns
        self._recovery = recovery
        self._stopping = stopping
        self._is_asked_to_stop = False
        self._ended = threading.Event()
        self._keeper = keeper
        self._slots = ThreadPoolExecutor(settings.worker_slots, thread_name_prefix="slot")
        self._slot_freed = threading.Event()
        self._busy = 0
        self._stuck: set[Holding] = set()
        self._counting = threading.Lock()
        self._calls = 0

    def stop(self, *_: object) -> None:
        """Take no more lanes; end when the turns at hand have ended or their grace is over.

        Safe as a signal handler, which a further signal may interrupt: no lock is taken. An event has one, and would
        wait for itself for ever.
        """
        self._is_asked_to_stop = True

    def run(self, *, burst: bool = False) -> int:
        """Work until stopped (`burst`: until nothing is due) and return the exit code."""
        self._prove_alive()
        self._keeper.start(self._prove_alive)
        for name, task, every_s in (
            ("presence", self._be_present, PRESENCE_TICK_S),
            ("watch", self._give_up_overdue, WATCH_TICK_S),
            ("duties", self._recovery.round, ROUND_S),
        ):
            threading.Thread(target=self._periodically, args=(task, every_s), name=name, daemon=True).start()
        log.info("worker_started", worker=self._presence.name, slots=self._settings.worker_slots)
        dispatcher = threading.Thread(target=self._dispatch, kwargs={"burst": burst}, name="dispatcher", daemon=True)
        dispatcher.start()
        while dispatcher.is_alive():
            dispatcher.join(STOP_TICK_S)
            if self._is_asked_to_stop:
                self._stopping.set()
            if self._stopping.is_set():
                self._call_dispatcher()
        return self._shut_down()

    # leasing

    def _dispatch(self, *, burst: bool) -> None:
        while not self._stopping.is_set():
            free = self._settings.worker_slots - self._busy
            if self._presence.is_suspended:
                self._stopping.wait(SUSPENDED_TICK_S)
                continue
            if free == 0:
                self._slot_freed.wait(BUSY_WAIT_MAX_S)
                self._slot_freed.clear()
                continue
            try:
                leased = self._lease(free)
                if burst and not leased.leases and not self._busy:
                    return
                if len(leased.leases) < free:  # all that was due, and the answer says when the next will be
                    self._wait_for_work(leased.next_due_s)
            except LanesUnavailable as error:
                log.warning("lease_failed", error=str(error))
                self._stopping.wait(OUTAGE_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - without this thread the process would live and do nothing
                log.error("task_failed", failure=describe(error))
                self._stopping.wait(OUTAGE_PAUSE_S)

    def _lease(self, free: int) -> Leased:
        """Lease for all free slots in one call. A call whose answer was lost is asked again by its number."""
        leased = self._lanes.lease(self._presence.name, self._calls, free, self._settings.lock_ttl_s)
        self._calls += 1
        with self._counting:
            self._busy += len(leased.leases)
        for holding in self._keeper.hold(leased.leases):
            self._slots.submit(self._work, holding)
        return leased

    def _wait_for_work(self, next_due_s: float | None) -> None:
        wait_s = IDLE_WAIT_MAX_S if next_due_s is None else min(IDLE_WAIT_MAX_S, next_due_s)
        was_called = wait_s > 0 and self._waker.wait_for_wake(wait_s)
        if was_called and (self._stopping.is_set() or self._presence.is_suspended):
            self._waker.pass_wake_on()

    def _call_dispatcher(self) -> None:
        """End an idle dispatcher's wait at once; another worker that is woken in its place finds nothing new."""
        try:
            self._lanes.pass_wake_on()
        except LanesUnavailable:
            return  # it waits no longer than a second

    # a slot

    def _work(self, holding: Holding) -> None:
        try:
            if holding.lease.taken_over:
                TAKEOVERS.count()
                log.warning("lane_taken_over", user_id=str(holding.lease.user_id), fence=holding.lease.fence)
            self._turns.work(holding)
        except Exception as error:  # noqa: BLE001 - a slot never dies; the lane is due again when its lease runs out
            log.error("slot_failed", user_id=str(holding.lease.user_id), failure=describe(error))
        finally:
            self._keeper.drop(holding)
            holding.close()
            with self._counting:
                self._busy -= 1
                self._stuck.discard(holding)
            self._slot_freed.set()

    # periodic tasks

    def _periodically(self, task: Callable[[], None], every_s: float) -> None:
        while True:
            try:
                task()
            except LanesUnavailable as error:
                log.warning("task_postponed", error=str(error))
            except Exception as error:  # noqa: BLE001 - these threads must not die
                log.error("task_failed", failure=describe(error))
            if self._ended.wait(every_s):
                return

    def _be_present(self) -> None:
        self._presence.beat([keys.queue_name(holding.lease.user_id) for holding in self._keeper.holdings])

    def _give_up_overdue(self) -> None:
        """End the leases of handlers that hang; with every slot hanging, end the process."""
        overdue_s = self._settings.turn_timeout_s + OVERDUE_GRACE_S
        for holding in self._keeper.holdings:
            turn, since = holding.turn, holding.handling_since
            if turn is not None and since is not None and time.monotonic() - since > overdue_s:
                with self._counting:
                    self._stuck.add(holding)
                self._turns.time_out(holding, turn)
                self._keeper.drop(holding)
        if len(self._stuck) >= self._settings.worker_slots:
            log.error("worker_stuck", slots=len(self._stuck))
            self._stopping.set()

    def _prove_alive(self) -> None:
        """Arm the last resort: a process whose keeper gets no CPU (a handler keeps the GIL) ends with its stacks."""
        faulthandler.dump_traceback_later(self._settings.stall_limit_s, exit=True, file=STDERR_FD)

    # the end

    def _shut_down(self) -> int:
        grace_ends = time.monotonic() + self._settings.shutdown_grace_s
        log.info("worker_stopping", lanes=len(self._keeper.holdings))
        while self._keeper.holdings and time.monotonic() < grace_ends:
            self._slot_freed.wait(min(BUSY_WAIT_MAX_S, max(0.0, grace_ends - time.monotonic())))
            self._slot_freed.clear()
        for holding in self._keeper.holdings:
            self._turns.hand_back(holding)
        self._ended.set()
        self._keeper.stop()
        faulthandler.cancel_dump_traceback_later()
        self._presence.disappear()
        counters.flush()
        log.info("worker_stopped", worker=self._presence.name)
        return EXIT_STUCK if len(self._stuck) >= self._settings.worker_slots else 0
