"""The slots of a worker process: one lane each."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from onelane.errors import describe
from onelane.lanes.holding import Holding
from onelane.telemetry.log import event
from onelane.telemetry.numbers import TAKEOVERS
from onelane.turns.shift import Shift, Workplace


class Slots:
    """The lanes at hand, each in a thread of its own. At most `size` at a time."""

    def __init__(self, size: int, workplace: Workplace) -> None:
        self._size = size
        self._workplace = workplace
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="slot")
        self._shifts: dict[str, Shift] = {}
        """By the lease's token: what slots work on, also after the lease was lost. Its size decides how many are free.

        Written by the dispatcher and the slots, one key at a time, which is atomic; whoever walks it takes a copy.
        """
        self.freed = threading.Event()

    @property
    def free(self) -> int:
        """How many more lanes could be worked on. Only the dispatcher fills slots, so it is never too many for it."""
        return self._size - len(self._shifts)

    @property
    def are_idle(self) -> bool:
        """Whether no slot works. One that hangs works for nobody: its lane was released."""
        return all(shift.is_given_up for shift in list(self._shifts.values()))

    @property
    def are_all_stuck(self) -> bool:
        """Whether every slot hangs in a handler."""
        return sum(shift.is_given_up for shift in list(self._shifts.values())) >= self._size

    def start(self, holding: Holding) -> None:
        """Work a lane. Without a thread for it, its lease runs out; a slot that becomes free may still try."""
        shift = Shift(holding, self._workplace)
        self._shifts[holding.lease.token] = shift
        try:
            self._threads.submit(self._work, shift)
        except RuntimeError as error:
            event("slot_failed", user_id=holding.lease.user_id, failure=describe(error))
            holding.close()

    def give_up_overdue(self, overdue_s: float) -> None:
        """End the leases of handlers that run for longer than `overdue_s`."""
        for shift in list(self._shifts.values()):
            turn, since = shift.turn, shift.handling_since
            if turn is not None and since is not None and time.monotonic() - since > overdue_s:
                shift.time_out(turn)

    def hand_back(self) -> None:
        """Release every lane that is still worked on, its message unhandled."""
        for shift in list(self._shifts.values()):
            shift.hand_back()

    def _work(self, shift: Shift) -> None:
        lease = shift.lease
        try:
            if lease.taken_over:
                TAKEOVERS.count()
                event("lane_taken_over", user_id=lease.user_id, fence=lease.fence)
            shift.run()
        except Exception as error:  # noqa: BLE001 - a slot never dies; the lane is due again when its lease runs out
            event("slot_failed", user_id=lease.user_id, failure=describe(error))
        finally:
            shift.holding.close()
            del self._shifts[lease.token]
            self.freed.set()
