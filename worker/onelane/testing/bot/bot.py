"""A bot under test."""

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, Self

from onelane.channels import Provider, provider_of
from onelane.config import Settings
from onelane.testing.bot.clock import Clock
from onelane.testing.bot.engine import Engine
from onelane.testing.bot.in_memory.engine import InMemory
from onelane.testing.bot.person import Person
from onelane.testing.bot.playing import Playing
from onelane.testing.bot.settings import CHANNEL, settings_of
from onelane.turns import bots, loading
from onelane.turns.bots import Function

NO_HOOKS: Final[Mapping[str, Function]] = MappingProxyType({})


class Bot:
    """A bot under test, and those who talk to it.

        alice = Bot("mybot:handle").user("alice")
        assert alice.says("hello") == ["You said: hello"]

    In memory, nothing is started, and a turn takes less than a millisecond.
    """

    def __init__(
        self,
        handle: str | Function,
        *,
        hooks: Mapping[str, Function] = NO_HOOKS,
        channel: Mapping[str, Any] | None = None,
        on_busy: Literal["queue", "collect", "interrupt", "reject"] = "queue",
        real: bool = False,
        **settings: Any,
    ) -> None:
        """Take the handler, or its path; a channel as CHANNELS has it; other settings by their names.

        Beside a function, `on_event`, `on_start` and `on_failed` are its module's, or those of `hooks`.

        With `real`, all is as in production: PostgreSQL and Redis of the extra `embedded`, and a worker.
        """
        self.settings = settings_of({"on_busy": on_busy, **(channel or {})}, settings)
        provider, tested = provider_of(self.settings.channels[CHANNEL]), _bot(handle, hooks)
        self.clock = Clock(timezone=self.settings.policies[0].timezone)
        self._playing = Playing(provider)
        self._engine = _engine(self.settings, tested, provider, self.clock, is_real=real)
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

    def reply_fails_next(self) -> None:
        """Let the provider refuse the next reply, for good: the bot gets an event `reply_failed`."""
        self._engine.refuse_next()

    def reply_is_lost_next(self) -> None:
        """Let the provider take the next reply, and its answer be lost: `on_unknown` decides what becomes of it."""
        self._engine.lose_next()

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


def _bot(handle: str | Function, hooks: Mapping[str, Function]) -> bots.Bot:
    """Load a path; beside a function go the hooks of its module, as they do in production."""
    if isinstance(handle, str):
        return loading.load(handle)
    module = sys.modules[handle.__module__]
    found = {name: getattr(module, name, None) for name in loading.HOOKS}
    return bots.Bot(handle, **{**found, **hooks})


def _engine(settings: Settings, bot: bots.Bot, provider: Provider, clock: Clock, *, is_real: bool) -> Engine:
    if is_real:
        from onelane.testing.bot.real.engine import Real  # noqa: PLC0415 - it needs the servers' packages

        return Real(settings, bot, clock)
    return InMemory(settings, bots.Bots(bot), provider, clock)
