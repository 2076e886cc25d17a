"""The slots of a worker process: one user's lane each.

Each lease is a shift on the work loop, which all share, and a sync handler has a thread to itself. The
dispatcher and the watch ask from their own threads; what they ask for is done on the loop.
"""

import threading
from collections.abc import Iterable, Sequence
from uuid import UUID

from onelane.errors import LanesUnavailable, NoThread, StoreUnavailable, describe
from onelane.lanes.holding import Holding
from onelane.telemetry.log import event
from onelane.turns.answers import answered
from onelane.turns.event_loop import all_of
from onelane.turns.leaving import Leaving
from onelane.turns.loop import Blockage
from onelane.turns.shift import Shift
from onelane.turns.stages import Stage, Stay
from onelane.turns.workplace import Workplace

POSTPONED_S = 0.5
"""How long a lane waits that cannot be worked now: its user's turn of a lost lease runs here, or there is no thread."""
HANGING_MAX = 2
"""Shifts of one user that may hang: in a handler, and in the wait for a child."""


class Slots:
    """The lanes at hand. A user holds one slot, whatever hangs of earlier leases; at most `size` are held."""

    def __init__(self, size: int, workplace: Workplace) -> None:
        self._size = size
        self._limits_s = {stage: stage.limit_s(workplace.settings) for stage in Stage}
        self._workplace = workplace
        self._host = workplace.handling.host
        self._shifts: dict[UUID, list[Shift]] = {}
        """By user: what is worked on, also after the lease was lost."""
        self._changing = threading.Lock()
        """Guards `_shifts`: the dispatcher adds, each shift removes itself, the watch reads."""
        self._leaving = Leaving(workplace.loop)
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

    def start(self, holdings: Iterable[Holding]) -> None:
        """Work lanes, all at once; give back for a moment those whose users must wait, or have no thread."""
        shifts = {holding: self._shift(holding) for holding in holdings}
        if begun := [holding.lease for holding, shift in shifts.items() if shift]:
            self._workplace.records.begin_ahead(begun)
        if shifts:
            self._workplace.loop.run_all(
                [self._work(shift) if shift else self._postpone(holding) for holding, shift in shifts.items()]
            )

    def _shift(self, holding: Holding) -> Shift | None:
        earlier = self._of(holding.lease.user_id)
        if _must_wait_for(earlier):
            return None
        shift = Shift(holding, self._workplace, runs_apart=any(shift.is_given_up for shift in earlier))
        if self._workplace.handling.bots.block:
            try:
                shift.thread.start()
            except NoThread as error:
                event("slot_failed", user_id=holding.lease.user_id, failure=str(error))
                return None
        self._add(shift)
        return shift

    def give_up_overdue(self) -> None:
        """End the leases of slots that are at one stage for longer than it may take, whoever holds them by now."""
        now = self._host.clock()
        for shift in self._all():
            stay = shift.stay
            if now - stay.since > self._limits_s[stay.stage] + stay.held_s and not shift.is_given_up:
                took_too_long = f"the handler did not finish within {self._workplace.settings.turn_timeout_s:g} s"
                self._give_up(shift, stay, stay.outage or took_too_long)

    def leave_loop(self, blockage: Blockage, blocked_s: float) -> None:
        """Hand back every turn that waits for a blocked event loop; only the one that blocks it is charged."""
        guilty, bystanders = blockage.turn and blockage.turn.messages[0].id, []
        for shift in self._all():
            stay = shift.stay
            if stay.stage is not Stage.HANDLE or stay.turn is None or shift.is_given_up:
                continue
            if stay.turn.first.id == guilty:
                self._give_up(shift, stay, f"the handler blocked the event loop for {blocked_s:g} s\n{blockage.stack}")
            else:
                bystanders.append(shift)
        self._leaving.begin(all_of([shift.hand_back() for shift in bystanders]))

    def hand_back(self) -> None:
        """Begin to release every lane that is still worked on, its message unhandled."""
        self._leaving.begin(all_of([shift.hand_back() for shift in self._all()]))

    def await_left(self, within_s: float) -> None:
        """Wait until those that were given up are settled, and those that were handed back released."""
        self._leaving.wait(within_s)

    def _give_up(self, shift: Shift, stay: Stay, why: str | StoreUnavailable) -> None:
        self._leaving.begin(shift.give_up(stay, why))

    async def _postpone(self, holding: Holding) -> None:
        """Give a lane back, for others or for later."""
        holding.close()
        try:
            await answered(self._workplace.lanes.park_soon(holding.lease, POSTPONED_S, has_begun=False))
        except LanesUnavailable as error:
            event("lane_left_to_its_lease", user_id=holding.lease.user_id, error=str(error))

    async def _work(self, shift: Shift) -> None:
        lease = shift.lease
        try:
            await shift.run()
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
