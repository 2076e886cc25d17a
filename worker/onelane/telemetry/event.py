"""One kind of log line."""

from typing import Literal, NamedTuple

Level = Literal["info", "warning", "error", "critical"]


class Event(NamedTuple):
    """One kind of log line."""

    level: Level
    meaning: str
    fields: tuple[str, ...] = ()
