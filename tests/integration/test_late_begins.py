"""A turn whose begin is answered after its lease has ended here is nobody's: its handler does not run."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from onelane.bootstrap import Services
from onelane.bot import Turn
from onelane.config import Settings
from onelane.lanes.holding import Holding
from onelane.outcomes import Begun
from onelane.turns.shift import Shift
from tests.conftest import Accept
from tests.working_off import TTL_S, _workplace


async def _lose(shift: Shift) -> None:
    shift.holding.cancel()


END_OF_LEASE: dict[str, Callable[[Shift], Awaitable[None]]] = {
    "handed back": Shift.hand_back,
    "lost": _lose,
    "given up": lambda shift: shift.give_up(shift.stay, "it took too long"),
}


@pytest.mark.parametrize("end", END_OF_LEASE.values(), ids=END_OF_LEASE)
def test_what_was_begun_too_late_is_not_handled(
    end: Callable[[Shift], Awaitable[None]], services: Services, settings: Settings, accept: Accept
) -> None:
    runs: list[Turn] = []
    workplace = _workplace(services, settings, runs.append)
    accept("alice")
    [lease] = services.lanes.lease("ours", 0, 1, TTL_S).leases
    shift, begin = Shift(Holding(lease), workplace), workplace.records.begin

    async def answer_late(*args: Any, **kwargs: Any) -> Begun:
        begun = await begin(*args, **kwargs)
        assert begun.turn is not None
        await end(shift)
        return begun

    workplace.records.begin = answer_late  # type: ignore[method-assign]
    workplace.loop.run(shift.run()).result()
    assert runs == []
