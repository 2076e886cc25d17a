"""Runs handlers in memory as a worker does: the same code decides who handles a message, and what comes of it."""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, cast
from uuid import uuid4

from onelane.channels.senders import Senders
from onelane.config import Settings
from onelane.lanes.holding import Holding
from onelane.model import Lease, TurnRead
from onelane.testing.bot.in_memory.host import InlineHost, InlineThread
from onelane.testing.bot.in_memory.turn_memory import TurnMemory
from onelane.turns.bots import Bots
from onelane.turns.handling import Handled, Handling


class Run(NamedTuple):
    """What came of one run of a handler."""

    turn: TurnRead
    """With what it has taken in."""
    handled: Handled
    is_interrupted: bool


class NoUploads:
    """Keeps no bytes: nobody sends them."""

    def keep(self, *_what: object) -> None:
        """Do nothing."""


class Running:
    """Runs the bot."""

    def __init__(
        self, settings: Settings, bots: Bots, senders: Senders, failures: list[str], arrive: Callable[[], object]
    ) -> None:
        """`arrive` accepts what is to come while a turn runs."""
        host, thread = InlineHost(failures, arrive), InlineThread()
        nothing, self._thread = cast("Any", None), cast("Any", thread)
        uploads = cast("Any", NoUploads())
        self._handling = Handling(settings, nothing, bots, cast("Any", host), nothing, nothing, senders, uploads)

    def run(self, turn: TurnRead, memory: TurnMemory) -> Run:
        """Run the handler of a turn's batch."""
        holding = Holding(Lease(user_id=turn.user.id, token=str(uuid4()), fence=1))
        running = self._handling.run(turn, holding, cast("Any", memory), self._thread, is_apart=False)
        turn, handled = _at_once(running)
        memory.interrupt()  # a sync handler runs to its end
        return Run(turn, handled, memory.is_interrupted)


def _at_once(running: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns that waits for nothing."""
    try:
        running.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("in memory nothing waits")
