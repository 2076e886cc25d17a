"""`onelane.say`: what a script or a view of your own says to a user, with the settings of the environment."""

from types import TracebackType
from typing import Self
from uuid import UUID

from onelane.bootstrap import open_services
from onelane.bot.reply import Reply
from onelane.channels.verdicts import Unsendable, Word
from onelane.config import Settings
from onelane.errors import BadResult, StoreRefused, StoreUnavailable
from onelane.saying import Said

__all__ = ["Said", "Speaker", "StoreUnavailable", "Unsendable", "say"]


class Speaker:
    """Says many things over few connections, which it opens when it first needs them. Threads may share one."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Take the settings of the environment, unless others are given; raise ConfigError for impossible ones."""
        self._services = open_services(settings or Settings.from_environment())

    def say(self, user: str | UUID, said: str | Reply, *, channel: str, key: str | None = None) -> Said:
        """Say something to a user: see `say`."""
        try:
            return self._services.saying.say(channel, user, said if isinstance(said, Reply) else Reply(said), key)
        except (BadResult, StoreRefused) as error:
            raise Unsendable(Word.BAD_CONTENT, str(error)) from error

    def close(self) -> None:
        """Give the connections back."""
        self._services.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def say(user: str | UUID, said: str | Reply, *, channel: str, key: str | None = None) -> Said:
    """Say something to a user from outside a turn: it is in the outbox, and nothing loses it, when this returns.

    `user` is an identifier that the provider has for them, or the id that Onelane gave. With a `key` it is said once,
    however often this is called. Raise Unsendable for what cannot be said, and StoreUnavailable when Postgres is away.
    Opens its own connections and closes them: use a Speaker for many.
    """
    with Speaker() as speaker:
        return speaker.say(user, said, channel=channel, key=key)
