"""The bots of a process: each channel's function for messages, and the one for events if its module has any."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from onelane.deliveries import Kind
from onelane.model import Message, TurnRead
from onelane.policy import Policy


class Act:
    """One function of a bot, called with a turn; one for events gets the event as well."""

    def __init__(self, function: Callable[..., Any], *, takes_event: bool = False) -> None:
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
        self._takes_event = takes_event

    def __call__(self, turn: Any) -> Any:
        """Call it; of an async one, return what is to be awaited."""
        return self.function(turn, turn.message) if self._takes_event else self.function(turn)


class Bot:
    """What one module gives."""

    def __init__(self, handle: Callable[..., Any], on_event: Callable[..., Any] | None = None) -> None:
        self.handle = Act(handle)
        self.on_event = None if on_event is None else Act(on_event, takes_event=True)

    def act_for(self, message: Message) -> Act | None:
        """Return what handles a message or an event; None for an echo, and for an event that no function takes."""
        match message.kind:
            case Kind.MESSAGE:
                return self.handle
            case Kind.EVENT:
                return self.on_event
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
        return self._of(turn.user.channel).act_for(turn.message)

    def completed(self, policy: Policy) -> Policy:
        """Say whether events of a policy's channel make turns."""
        return policy.model_copy(update={"wants_events": self._of(policy.channel).on_event is not None})

    def _of(self, channel: str) -> Bot:
        return self._by_channel.get(channel, self._default)
