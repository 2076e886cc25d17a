"""Statuses of one webhook are islands: one that is held up or refused keeps no lane of the others waiting."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from onelane.deliveries import Status
from onelane.errors import StoreAway, StoreRefused, StoreUnavailable
from onelane.inbox.statuses import SKIPPED, Statuses
from onelane.model import JsonObject
from onelane.postgres.faults import LOCK_NOT_AVAILABLE

HELD = StoreUnavailable("a lock", LOCK_NOT_AVAILABLE)
REFUSED = StoreRefused("22P02")


class Servers:
    """Postgres, where some statuses cannot be noted; Redis, where lanes go on; and who tells bots of failures."""

    def __init__(self, **troubles: Exception) -> None:
        self.troubles = troubles
        self.users: dict[str, str] = {}
        self.calls: list[list[str]] = []
        self.going_on: set[UUID] = set()
        self.told = 0

    def ask(self, _function: str, items: Sequence[JsonObject], *, waits: bool, within_s: float) -> list[JsonObject]:
        assert within_s > 0
        names = [item["provider_id"] for item in items]
        self.calls.append(names)
        if not waits:
            if REFUSED in [self.troubles.get(name) for name in names]:
                raise REFUSED
            return [SKIPPED if name in self.troubles else self._moved(name) for name in names]
        if trouble := self.troubles.get(names[0]):
            raise trouble
        return [self._moved(names[0])]

    def _moved(self, name: str) -> JsonObject:
        user_id = self.users.setdefault(name, str(uuid4()))
        return {"outcome": "moved", "state": "failed", "goes_on": True, "failed": True, "user_id": user_id}

    def make_all_due(self, users: Sequence[UUID]) -> None:
        self.going_on.update(users)

    def tell(self, _within_s: float) -> None:
        self.told += 1


def noted(servers: Any, *names: str) -> None:
    said = [Status(provider_id=name, state="failed") for name in names]
    Statuses(servers, {}, servers, servers).note("demo", said)


@pytest.mark.parametrize("trouble", [HELD, REFUSED])
def test_what_is_noted_lets_its_lane_go_on_whatever_becomes_of_another(trouble: Exception) -> None:
    servers = Servers(b=trouble)
    with pytest.raises(type(trouble)):
        noted(servers, "a", "b", "c")
    assert servers.going_on == {UUID(servers.users[name]) for name in "ac"}
    assert servers.told == 1


def test_one_that_is_held_up_keeps_no_other_from_being_noted() -> None:
    servers = Servers(a=HELD, b=REFUSED, c=HELD)
    with pytest.raises(StoreUnavailable):
        noted(servers, "a", "b", "c", "d")
    assert [names for names in servers.calls if len(names) == 1] == [["a"], ["b"], ["c"], ["d"]]
    assert servers.going_on == {UUID(servers.users["d"])}


def test_of_a_server_that_is_away_nothing_more_is_asked() -> None:
    servers = Servers(a=StoreAway("away"))
    with pytest.raises(StoreAway):
        noted(servers, "a", "b")
    assert [names for names in servers.calls if len(names) == 1] == [["a"]]
    assert servers.going_on == {UUID(servers.users["b"])}
