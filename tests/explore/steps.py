"""One thing that happens: who does it, what is called and answered, and the state afterwards."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.explore.settings import Setting
from tests.explore.state import IDLE, NOBODY, Lane, Slot, State, User

Call = tuple[Any, ...]
"""The name of a script or of a function, the user, and what it is asked."""


class Step(NamedTuple):
    """One thing that happens."""

    who: str
    what: str
    after: State
    call: Call = ()
    answer: Any = None


class At(NamedTuple):
    """Where a step begins: a slot of a worker."""

    state: State
    setting: Setting
    nr: int
    kind: str
    slot: Slot

    @property
    def user(self) -> User:
        return self.state.users[self.slot.user]

    @property
    def lane(self) -> Lane:
        return self.user.lane(self.kind)

    @property
    def who(self) -> str:
        return f"worker {self.nr + 1} ({self.kind})"

    def goes(self, what: str, slot: Slot, user: User | None = None, call: Call = (), answer: Any = None) -> Step:
        """Make the step after which the slot and its user are these."""
        state = self.state if user is None else self.state.put_user(self.slot.user, user)
        return Step(self.who, what, state.put_slot(self.nr, self.kind, slot), call, answer)

    def calls(self, what: str, call: Call, user: User, answer: Any, slot: Slot) -> Iterator[Step]:
        """Make a call, whose answer is heard or lost: then the slot stays where it is, and makes the call again."""
        yield self.goes(what, slot, user, call, answer)
        if self.state.left.losses and user is not self.user:
            unheard = self.goes(f"{what}, and does not hear the answer", self.slot, user, call, answer)
            yield unheard._replace(after=unheard.after.spend("losses"))

    def asks_lane(self, what: str, call: Call, done: tuple[Lane, Any], slot: Slot) -> Iterator[Step]:
        lane, answer = done
        return self.calls(what, call, self.user.put(self.kind, lane), answer, slot)


def told(step: Step) -> str:
    return f"{step.who} {step.what}"


def ended(slot: Slot) -> Slot:
    return Slot("ended", slot.user, NOBODY, tells=slot.tells) if slot.tells else IDLE


def looks(slot: Slot) -> Slot:
    return slot._replace(stage="jobs", work=None)


def finishes(slot: Slot, *, has_more: bool = False, may_go_on: bool = False, pause: bool = False) -> Slot:
    return slot._replace(stage="finish", work=(has_more, may_go_on, pause))


def parks(slot: Slot) -> Slot:
    return slot._replace(stage="park", work=None)
