"""The SQL calls that take lists, as a test makes them: plain items in, plain answers out."""

from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from onelane.postgres.db import Database
from tests.rows import OneConnection

Item = dict[str, Any]


class Calls:
    """Calls over one database."""

    def __init__(self, database: Database | OneConnection) -> None:
        self._database = database

    def accept(self, *items: Item, waits: bool = True) -> list[Item]:
        """Accept deliveries."""
        return self._call("accept", items, waits)

    def begin(self, *items: Item, waits: bool = True) -> list[Item]:
        """Begin turns."""
        return self._call("begin_turns", items, waits)

    def settle(self, *items: Item, waits: bool = True) -> list[Item]:
        """Settle turns."""
        return self._call("settle_turns", items, waits)

    def begin_sends(self, *items: Item, waits: bool = True) -> list[Item]:
        """Begin sends."""
        return self._call("begin_sends", items, waits)

    def settle_sends(self, *items: Item, waits: bool = True) -> list[Item]:
        """Settle sends."""
        return self._call("settle_sends", items, waits)

    def _call(self, function: str, items: tuple[Item, ...], waits: bool) -> list[Item]:
        [row] = self._database.rows(f"SELECT {function}(%s, %s) AS answers", (Jsonb(list(items)), waits))
        answers: list[Item] = row.answers
        return answers


def delivery(sender: str, external_id: str, text: str = "hello", **extra: object) -> Item:
    """Make an item of accept."""
    return {"channel": "demo", "senders": [sender], "external_id": external_id, "text": text, **extra}


def lease(user_id: UUID | str, fence: int = 1, **extra: object) -> Item:
    """Make an item of begin_turns."""
    return {"user_id": str(user_id), "fence": fence, "hint": None, "taken_over": False, **extra}


def settlement(begun: Item, fence: int = 1, *, goes_on: bool = False, **effects: object) -> Item:
    """Make an item of settle_turns that commits what was begun."""
    turn = begun["turn"]
    return {
        "user_id": begun["user_id"],
        "fence": fence,
        "version": turn["version"],
        "seqs": [message["seq"] for message in turn["messages"]],
        "session_id": turn["session"]["id"],
        "goes_on": goes_on,
        "effects": effects,
    }


def failure(begun: Item, fence: int = 1, *, attempts_max: int = 5, poison: str = "skip", **extra: object) -> Item:
    """Make an item of settle_turns that notes a failed attempt."""
    item = settlement(begun, fence)
    del item["effects"]
    attempts = begun["turn"]["messages"][-1]["attempts"]
    return {
        **item,
        "failure": {"error": "E", "attempts": attempts, "attempts_max": attempts_max, "poison": poison, **extra},
    }


def sent(begun: Item, outcome: str = "accepted", fence: int = 1, **extra: object) -> Item:
    """Make an item of settle_sends that says what came of what begin_sends handed out."""
    reply = begun["reply"]
    return {
        "user_id": begun["user_id"],
        "fence": fence,
        "reply_id": reply["id"],
        "attempt": reply["attempt"],
        "outcome": outcome,
        "goes_on": False,
        "deadline_s": 25,
        **({"provider_id": f"P{reply['id']}"} if outcome == "accepted" else {}),
        **extra,
    }
