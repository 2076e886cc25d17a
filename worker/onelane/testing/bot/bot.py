"""A bot under test."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from onelane.channels import provider_of
from onelane.channels.senders import Senders
from onelane.testing.bot.clock import Clock
from onelane.testing.bot.engine import Engine
from onelane.testing.bot.in_memory.engine import InMemory
from onelane.testing.bot.person import Person
from onelane.testing.bot.playing import Playing
from onelane.testing.bot.settings import CHANNEL, settings_of
from onelane.turns import bots, loading
from onelane.turns.bots import Bots


class Bot:
    """A bot under test, and those who talk to it.

        alice = Bot("mybot:handle").user("alice")
        assert alice.says("hello") == ["You said: hello"]

    In memory, nothing is started, and a turn takes less than a millisecond.
    """

    def __init__(
        self,
        handle: str | Callable[..., Any],
        *,
        on_event: Callable[..., Any] | None = None,
        channel: Mapping[str, Any] | None = None,
        on_busy: Literal["queue", "collect", "interrupt"] = "queue",
        **settings: Any,
    ) -> None:
        """Take the handler, or its path; a channel as CHANNELS has it; other settings by their names."""
        self.settings = settings_of({"on_busy": on_busy, **(channel or {})}, settings)
        provider, tested = provider_of(self.settings.channels[CHANNEL]), _bots(handle, on_event)
        policy = tested.completed(self.settings.policies[0])
        self.clock = Clock(timezone=policy.timezone)
        self._playing = Playing(provider)
        self._engine: Engine = InMemory(self.settings, policy, tested, Senders({CHANNEL: provider}), self.clock)
        self._people: dict[str, Person] = {}

    def user(self, name: str) -> Person:
        """Return the person of a name, whom the provider names as it names people."""
        if name not in self._people:
            persona = self._playing.provider.persona(name)
            self._people[name] = Person(name, persona, self._engine, self._playing)
        return self._people[name]

    def crashes_next(self, after: Literal["handler", "commit"] = "handler") -> None:
        """Let the next turn's worker die: after its handler, before anything is stored; or after all is."""
        self._engine.crash_next(after)

    @property
    def failures(self) -> list[str]:
        """Where and why handlers failed, in order."""
        return self._engine.failures

    def close(self) -> None:
        """Stop what was started."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _bots(handle: str | Callable[..., Any], on_event: Callable[..., Any] | None) -> Bots:
    """Load a path; beside a function, `on_event` of its module takes events, as it does in production."""
    if isinstance(handle, str):
        return Bots(loading.load(handle))
    return Bots(bots.Bot(handle, on_event or getattr(sys.modules[handle.__module__], "on_event", None)))
