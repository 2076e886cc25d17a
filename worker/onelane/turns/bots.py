"""The bots of a process: what each module gives for messages, and for events, first turns and failures if it has it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from onelane.bot.reply import Reply, all_of
from onelane.deliveries import Kind
from onelane.model import TurnRead
from onelane.policy import Policy

Function = Callable[..., Any]


class Act:
    """One function of a bot, called with a turn, and with what it is about where that is no message."""

    def __init__(self, function: Function, *about: Any) -> None:
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
        self._about = about

    def __call__(self, turn: Any) -> Any:
        """Call it; of an async one, return what is to be awaited."""
        return self.function(turn, *self._about)


class Bot:
    """What one module gives."""

    def __init__(
        self,
        handle: Function,
        on_event: Function | None = None,
        on_start: Function | None = None,
        on_failed: Function | None = None,
    ) -> None:
        """`on_start` is async where the others are that it goes before."""
        self.handle = Act(handle)
        self.on_event = on_event
        self.on_failed = on_failed
        self.on_start = on_start

    def act_for(self, turn: TurnRead) -> Act | None:
        """Return what handles a turn; None for an echo, and for an event or a failure that no function takes."""
        if turn.failure is not None:
            return None if self.on_failed is None else Act(self.on_failed, turn.failure)
        act = self._act_for_last(turn)
        if act is None or self.on_start is None or not turn.session.is_first:
            return act
        return Act(_in_order(Act(self.on_start), act))

    def _act_for_last(self, turn: TurnRead) -> Act | None:
        match turn.message.kind:
            case Kind.MESSAGE:
                return self.handle
            case Kind.EVENT:
                return None if self.on_event is None else Act(self.on_event, turn.message)
        return None


class Bots:
    """Each channel's bot."""

    def __init__(self, default: Bot, by_channel: Mapping[str, Bot] | None = None) -> None:
        """`default` is that of a channel without its own, also of one that is configured no more."""
        self._default = default
        self._by_channel = by_channel or {}
        used = self._by_channel.values() or [default]
        self.block = any(not bot.handle.is_async for bot in used)
        """Whether calling one of them may take time: then that needs a thread."""

    def act_for(self, turn: TurnRead) -> Act | None:
        """Return what handles a turn's batch; None when nothing does."""
        return self._of(turn.user.channel).act_for(turn)

    def answers_failures(self, turn: TurnRead) -> bool:
        """Whether the bot has a word of its own for a message that dies, and this is not its turn already."""
        return turn.failure is None and self._of(turn.user.channel).on_failed is not None

    def completed(self, policy: Policy) -> Policy:
        """Say whether events of a policy's channel make turns."""
        return policy.model_copy(update={"wants_events": self._of(policy.channel).on_event is not None})

    def _of(self, channel: str) -> Bot:
        return self._by_channel.get(channel, self._default)


def _in_order(start: Act, act: Act) -> Function:
    """Make one function of two, whose replies come one after the other."""
    if act.is_async:

        async def opened_async(turn: Any) -> list[Reply]:
            return [*all_of(await start(turn)), *all_of(await act(turn))]

        return opened_async

    def opened(turn: Any) -> list[Reply]:
        return [*all_of(start(turn)), *all_of(act(turn))]

    return opened
