"""What the users saw, read from the fakes' journal: for tests and checkers."""

import json
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onelane.model import JsonObject


@dataclass(frozen=True, slots=True)
class Visible:
    """A message that a user saw."""

    n: int
    """The number of the request that made it visible."""
    at: float
    channel: str
    user: str
    key: str | None
    text: str
    kind: str
    provider_id: str
    copy: int
    """1; of a second one that the provider itself has made of one request, 2."""


class Received:
    """A journal; each method knows what is written by now."""

    def __init__(self, journal: Path) -> None:
        """Read this file."""
        self._journal = journal
        self._read_to = 0
        self._lines: list[JsonObject] = []

    def lines(self, event: str | None = None, **fields: Any) -> list[JsonObject]:
        """List what was written, oldest first: all, or what is of this event and has these fields."""
        wanted = {**fields, **({"event": event} if event else {})}
        self._read_on()
        return [line for line in self._lines if all(line.get(name) == value for name, value in wanted.items())]

    def visible(self, channel: str | None = None) -> list[Visible]:
        """List the messages in the order in which they became visible."""
        fields = Visible.__slots__
        return [
            Visible(**{name: line[name] for name in fields})
            for line in self.lines("visible")
            if channel in {None, line["channel"]}
        ]

    def by_user(self, channel: str | None = None) -> dict[str, list[Visible]]:
        """List each user's messages in order."""
        users: dict[str, list[Visible]] = defaultdict(list)
        for message in self.visible(channel):
            users[message.user].append(message)
        return dict(users)

    def texts(self, user: str, channel: str | None = None) -> list[str]:
        """List what a user read."""
        return [message.text for message in self.by_user(channel).get(user, [])]

    def keys(self, channel: str | None = None) -> set[str]:
        """Return the keys of what became visible."""
        return {message.key for message in self.visible(channel) if message.key}

    def doubles(self, channel: str | None = None) -> dict[str, int]:
        """Count what users saw more than once since it was *sent* more than once, by its key.

        Where the API carries no key, by channel, user and text: they must differ then. What the provider itself doubled
        is not counted.
        """
        seen = Counter(
            message.key or f"{message.channel} {message.user} {message.text}"
            for message in self.visible(channel)
            if message.copy == 1
        )
        return {key: times for key, times in seen.items() if times > 1}

    def _read_on(self) -> None:
        """Read the whole lines that are new; the last one may be half written."""
        with suppress(FileNotFoundError), self._journal.open("rb") as journal:
            journal.seek(self._read_to)
            text, newline, _ = journal.read().rpartition(b"\n")
            self._read_to += len(text) + len(newline)
            self._lines += map(json.loads, text.splitlines())
