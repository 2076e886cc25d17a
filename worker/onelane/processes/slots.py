"""The slots of a worker process: one user's lane each.

Each lease is worked in a thread of its own, which ends with it: what a handler leaves in its thread is gone with the
lease, and a thread that hangs is no thread that others need.
"""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import Thread
from uuid import UUID

from onelane.errors import LanesUnavailable, StoreUnavailable, describe
from onelane.lanes.holding import Holding
from onelane.telemetry.log import event
from onelane.telemetry.numbers import TAKEOVERS
from onelane.turns.loop import Blockage
from onelane.turns.shift import Shift
from onelane.turns.stages import Stage, Stay
from onelane.turns.workplace import Workplace

POSTPONED_S = 0.5
"""How long a lane waits that cannot be worked now: its user's turn of a lost lease runs here, or there is no thread."""
HANGING_MAX = 2
"""Threads of one user that may hang: a handler's, and one that waits for a child."""


class Slots:
    """The lanes at hand. A user holds one slot, whatever hangs of earlier leases; at most `size` are held."""

    def __init__(self, size: int, workplace: Workplace) -> None:
        self._size = size
        self._workplace = workplace
        self._host = workplace.handling.host
        self._shifts: dict[UUID, list[Shift]] = {}
        """By user: what threads work on, also after the lease was lost."""
        self._changing = threading.Lock()
        """Guards `_shifts`: the dispatcher adds, each thread removes its own, the watch reads."""
        self._leavers: list[Thread] = []
        self.freed = threading.Event()

    @property
    def free(self) -> int:
        """How many more lanes could be worked on. Only the dispatcher fills slots, so it is never too many for it."""
        return self._size - len(self._shifts)

    @property
    def are_idle(self) -> bool:
        """Whether no slot works. One that is stuck works for nobody: its lane was released."""
        return all(shift.is_given_up for shift in self._all())

    @property
    def are_all_stuck(self) -> bool:
        """Whether something is stuck in every slot."""
        return len({shift.lease.user_id for shift in self._all() if shift.is_given_up}) >= self._size

    def start(self, holding: Holding) -> None:
        """Work a lane, or give it back for a moment when its user must wait or no thread can be started."""
        earlier = self._of(holding.lease.user_id)
        if _must_wait_for(earlier):
            self._postpone(holding)
            return
        shift = Shift(holding, self._workplace, runs_apart=any(shift.is_given_up for shift in earlier))
        self._add(shift)
        try:
            Thread(target=self._work, args=(shift,), name="slot", daemon=True).start()
        except RuntimeError as error:
            event("slot_failed", user_id=holding.lease.user_id, failure=describe(error))
            self._remove(shift)
            self._postpone(holding)

    def give_up_overdue(self) -> None:
        """End the leases of slots that are at one stage for longer than it may take, whoever holds them by now."""
        now, settings = self._host.clock(), self._workplace.settings
        for shift in self._all():
            stay = shift.stay
            if not shift.is_given_up and now - stay.since > stay.stage.limit_s(settings):
                took_too_long = f"the handler did not finish within {settings.turn_timeout_s:g} s"
                self._give_up(shift, stay, stay.outage or took_too_long)

    def leave_loop(self, blockage: Blockage, blocked_s: float) -> None:
        """Hand back every turn that waits for a blocked event loop; only the one that blocks it is charged."""
        guilty = blockage.turn and blockage.turn.message.id
        for shift in self._all():
            stay = shift.stay
            if stay.stage is not Stage.HANDLE or stay.turn is None or shift.is_given_up:
                continue
            if stay.turn.message.id == guilty:
                self._give_up(shift, stay, f"the handler blocked the event loop for {blocked_s:g} s\n{blockage.stack}")
            else:
                self._leave(shift.hand_back)

    def hand_back(self) -> None:
        """Begin to release every lane that is still worked on, its message unhandled."""
        for shift in self._all():
            self._leave(shift.hand_back)

    def await_left(self, within_s: float) -> None:
        """Wait until those that were given up are settled, and those that were handed back released."""
        ends = time.monotonic() + within_s
        for leaver in list(self._leavers):
            leaver.join(max(0.0, ends - time.monotonic()))

    def _give_up(self, shift: Shift, stay: Stay, why: str | StoreUnavailable) -> None:
        self._leave(partial(shift.give_up, stay, why))

    def _leave(self, leave: Callable[[], object]) -> None:
        """Leave a lane in a thread of its own: the watch waits for no server, and what many ask of one goes at once."""
        leaver = Thread(target=leave, name="leave", daemon=True)
        leaver.start()
        self._leavers = [*(leaver for leaver in self._leavers if leaver.is_alive()), leaver]

    def _postpone(self, holding: Holding) -> None:
        """Give a lane back, for others or for later."""
        holding.close()
        try:
            self._workplace.lanes.park(holding.lease, POSTPONED_S)
        except LanesUnavailable as error:
            event("lane_left_to_its_lease", user_id=holding.lease.user_id, error=str(error))

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
            self._remove(shift)
            self.freed.set()

    def _add(self, shift: Shift) -> None:
        with self._changing:
            self._shifts.setdefault(shift.lease.user_id, []).append(shift)

    def _remove(self, shift: Shift) -> None:
        with self._changing:
            of_user = self._shifts[shift.lease.user_id]
            of_user.remove(shift)
            if not of_user:
                del self._shifts[shift.lease.user_id]

    def _of(self, user_id: UUID) -> list[Shift]:
        with self._changing:
            return list(self._shifts.get(user_id, ()))

    def _all(self) -> list[Shift]:
        with self._changing:
            return [shift for shifts in self._shifts.values() for shift in shifts]


def _must_wait_for(earlier: Sequence[Shift]) -> bool:
    """Whether a user's next turn waits: the last one still runs, its lease lost; or too many hang."""
    hanging = [shift for shift in earlier if shift.is_given_up]
    running = [shift for shift in earlier if not (shift.is_given_up or shift.stay.stage.is_leaving)]
    return bool(running) or len(hanging) >= HANGING_MAX
