"""What a turn asks of Postgres, before Postgres is asked."""

from collections.abc import Callable, Sequence
from threading import Event
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from onelane.config import Settings
from onelane.errors import StoreUnavailable
from onelane.model import JsonObject, Lease
from onelane.outcomes import BeginOutcome
from onelane.postgres.db import Database
from onelane.turns.records import Records
from tests import loops

HELD = UUID(int=1)
"""A user whose row somebody holds for long."""


class Server:
    """Answers that nothing waits, and keeps the lists that it was asked."""

    breaker = None

    def __init__(self) -> None:
        self.lists: list[list[str]] = []

    def asks(self, _function: str) -> Callable[[Sequence[JsonObject], bool], list[JsonObject]]:
        """Be a database."""
        return lambda items, _waits: self._answers(items)

    def _answers(self, items: Sequence[JsonObject]) -> list[JsonObject]:
        self.lists.append([item["user_id"] for item in items])
        return [
            {"user_id": item["user_id"], "outcome": "skipped" if item["user_id"] == str(HELD) else "idle", "fence": 0}
            for item in items
        ]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def records(server: Server) -> Records:
    settings = SimpleNamespace(db_pool_max=2)
    return Records(cast("Settings", settings), cast("Database", server), Event())


def lease(user_id: UUID | None = None) -> Lease:
    return Lease(user_id=user_id or uuid4(), token=str(uuid4()), fence=1, taken_over=False)


def begin(records: Records, one: Lease, *, is_first: bool) -> Any:
    return loops.run(records.begin(one, None, is_first=is_first)).outcome


def test_the_first_turns_of_leases_are_asked_for_together_and_each_once(records: Records, server: Server) -> None:
    leases = [lease(), lease(), lease()]
    records.begin_ahead(leases)
    assert {begin(records, one, is_first=True) for one in leases} == {BeginOutcome.IDLE}
    assert server.lists == [[str(one.user_id) for one in leases]]


def test_later_turns_and_a_first_one_that_nobody_asked_for_are_asked_for_then(records: Records, server: Server) -> None:
    one, other = lease(), lease()
    records.begin_ahead([one])
    for of, is_first in ((one, True), (one, False), (other, True)):
        begin(records, of, is_first=is_first)
    assert server.lists == [[str(one.user_id)], [str(one.user_id)], [str(other.user_id)]]


def test_what_was_asked_ahead_and_not_done_is_refused_for_now(records: Records) -> None:
    held = lease(HELD)
    records.begin_ahead([held])
    with pytest.raises(StoreUnavailable):
        begin(records, held, is_first=True)
