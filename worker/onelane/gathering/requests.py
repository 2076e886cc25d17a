"""What is asked of a SQL function, and the calls in which it goes."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from math import inf
from typing import Final

from onelane.model import JsonObject

Answers = list[tuple["Future[JsonObject]", JsonObject | Exception]]
"""What to answer to whom."""
PIECE_MAX: Final = 16
"""Items of one request in a list. The rest of a large one goes with the next lists, so that others share them."""


@dataclass(eq=False)
class Request:
    """Items of one user that are asked together, in their order."""

    whose: str
    ends: float
    items: list[JsonObject] = field(default_factory=list)
    futures: list["Future[JsonObject]"] = field(default_factory=list)
    skips: int = 0
    skipped_at: float = inf
    waits: bool = False
    """Whether it is to wait for the row that somebody holds."""

    def add(self, item: JsonObject, future: "Future[JsonObject]") -> None:
        """Ask for an item, too."""
        self.items.append(item)
        self.futures.append(future)

    def forget_skips(self) -> None:
        """Note that nobody holds it up any more."""
        self.skips, self.skipped_at, self.waits = 0, inf, False

    @property
    def piece(self) -> list[JsonObject]:
        """Its first items, which go in one call; the others follow when these are answered."""
        return self.items[:PIECE_MAX]

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return all(future.done() for future in self.futures)

    def all_get(self, answer: Exception) -> Answers:
        """Answer all items alike."""
        return [(future, answer) for future in self.futures]


@dataclass(eq=False)
class Call:
    """Requests that go to Postgres in one list."""

    requests: list[Request]
    is_alone: bool = False
    is_half: bool = False
    """Whether it is half of a list that failed as a whole."""
    began: float = inf

    @property
    def items(self) -> list[JsonObject]:
        """What is sent of the requests, one after the other."""
        return [item for request in self.requests for item in request.piece]

    @property
    def waits(self) -> bool:
        """Whether it waits for rows that somebody holds. In a list nobody does."""
        return self.is_alone and self.requests[0].waits
