"""One person stays one user, from the first delivery on that names their identifiers together."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Barrier

import psycopg
import pytest
from psycopg.types.json import Jsonb

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.postgres.db import Database
from onelane.users import user_of
from tests.calls import Calls, Item, delivery
from tests.conftest import eventually
from tests.rows import Rows

RACERS = 8
PEOPLE = range(10)


@pytest.fixture
def calls(services: Services) -> Calls:
    return Calls(services.database)


def named(*senders: str, nr: int, conversation: str | None = None) -> Item:
    return {**delivery(senders[0], f"m{nr}"), "senders": list(senders), "conversation": conversation}


def test_identifiers_that_come_together_are_one_user_for_ever(services: Services, calls: Calls) -> None:
    answers = calls.accept(
        named("+33600000001", nr=1), named("scoped-1", "+33600000001", nr=2), named("scoped-1", nr=3)
    )
    assert len({one["user_id"] for one in answers}) == 1
    assert [one["seq"] for one in answers] == [1, 2, 3]
    assert str(user_of(services.database, "demo", "scoped-1")) == answers[0]["user_id"]
    assert user_of(services.database, "other", "scoped-1") is None


def test_two_users_that_turn_out_to_be_one_are_shown_and_not_merged(
    rows: Rows, services: Services, calls: Calls
) -> None:
    phone, scoped = calls.accept(named("+33600000001", nr=1), named("scoped-1", nr=2))
    services.database.rows("SELECT get_or_create_session(%s)", (scoped["user_id"],))
    [both] = calls.accept(named("scoped-1", "+33600000001", nr=3))
    assert phone["user_id"] != scoped["user_id"]
    assert (both["user_id"], both["has_conflict"]) == (scoped["user_id"], True), "the one with the open session"
    assert len(rows.senders()) == 2


def test_a_message_in_a_group_lands_in_the_groups_session(services: Services, calls: Calls) -> None:
    private, group, again = calls.accept(
        named("alice", nr=1), named("alice", nr=2, conversation="group-9"), named("bob", nr=3, conversation="group-9")
    )
    assert private["user_id"] != group["user_id"] == again["user_id"]
    aliases = services.database.rows("SELECT alias FROM user_aliases ORDER BY alias")
    assert [row.alias for row in aliases] == ["alice", "group-9"], "who speaks in a group is no alias of it"


@pytest.fixture
def many(settings: Settings, services: Services) -> Iterator[Calls]:
    """Calls over as many connections as a race needs."""
    database = Database(settings.database_url, pool_max=RACERS)
    yield Calls(database)
    database.close()


@pytest.mark.parametrize("size", [1, len(PEOPLE)], ids=["alone, waiting", "lists in opposed orders"])
def test_first_messages_that_race_make_one_user_without_deadlock(
    rows: Rows, services: Services, many: Calls, size: int
) -> None:
    start = Barrier(RACERS)

    def accept(racer: int) -> list[Item]:
        order = list(PEOPLE)
        Random(racer).shuffle(order)
        start.wait(10)
        left = [named(f"phone {one}", f"scoped {one}", nr=racer * 100 + one) for one in order]
        answers = []
        while left:
            answered = many.accept(*left[:size], waits=size == 1)
            skipped = [item for item, one in zip(left, answered, strict=False) if one["outcome"] == "skipped"]
            left = [*skipped, *left[size:]]
            answers += [one for one in answered if one["outcome"] != "skipped"]
        return answers

    with ThreadPoolExecutor(RACERS) as pool:
        answers = [one for of_racer in pool.map(accept, range(RACERS)) for one in of_racer]
    assert {one["outcome"] for one in answers} == {"accepted"}
    assert len({one["user_id"] for one in answers}) == len(PEOPLE)
    assert len(rows.senders()) == len(PEOPLE)
    seqs = services.database.rows("SELECT user_id, array_agg(seq ORDER BY seq) AS seqs FROM inbox GROUP BY user_id")
    assert all(row.seqs == list(range(1, RACERS + 1)) for row in seqs)


def test_messages_and_changes_that_race_in_overlapping_names_make_one_user_each(
    rows: Rows, services: Services, many: Calls
) -> None:
    """Of each person two names meet for the first time in a change; each racer begins elsewhere."""
    start = Barrier(RACERS)

    def accept(racer: int) -> list[str]:
        people = Random(racer).sample(PEOPLE, len(PEOPLE))
        start.wait(10)
        left = [item for one in people for item in phases(one, racer)]
        outcomes = []
        while left:
            answered = many.accept(*left, waits=False)
            skipped = [item for item, one in zip(left, answered, strict=True) if one["outcome"] == "skipped"]
            outcomes += [one["outcome"] for one in answered if one["outcome"] != "skipped"]
            if len(skipped) == len(left):
                [answer] = many.accept(skipped[0], waits=True)
                if answer["outcome"] != "skipped":
                    outcomes.append(answer["outcome"])
                    skipped = skipped[1:]
            left = skipped
        return outcomes

    def phases(one: int, racer: int) -> list[Item]:
        change = {**named(f"phone {one}", nr=one), "external_id": f"change {one}", "text": ""}
        change |= {"kind": "event", "event": "identity_changed", "adds": [f"scoped {one}"]}
        last = named(f"scoped {one}", nr=racer * 100 + one)
        return [change, {**named(f"phone {one}", nr=0), "external_id": f"first {racer} {one}"}, last]

    with ThreadPoolExecutor(RACERS) as pool:
        outcomes = [one for of_racer in pool.map(accept, range(RACERS)) for one in of_racer]
    assert sorted(set(outcomes)) == ["accepted", "duplicate"]
    assert outcomes.count("duplicate") == (RACERS - 1) * len(PEOPLE), "each change counts once"
    assert len(rows.senders()) == len(PEOPLE)
    numbers = services.database.rows("SELECT last_seq FROM users")
    assert {row.last_seq for row in numbers} == {1 + 2 * RACERS}


def test_a_name_that_is_dropped_while_a_message_waits_for_its_user_leads_elsewhere(
    services: Services, calls: Calls, many: Calls, settings: Settings
) -> None:
    """The message has found the user, and waits for the row; the change commits before it."""
    [first] = calls.accept(named("phone", "scoped", nr=1))
    change = {**named("scoped", nr=2), "kind": "event", "event": "identity_changed", "drops": ["phone"]}
    with psycopg.connect(settings.database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT accept(%s)", (Jsonb([change]),))
        waiting = pool.submit(many.accept, named("phone", nr=3))
        eventually(lambda: services.database.rows("SELECT FROM pg_locks WHERE NOT granted"))
        other.commit()
        [answer] = waiting.result(10)
    assert answer["outcome"] == "accepted"
    assert answer["user_id"] != first["user_id"]


def test_one_delivery_that_comes_at_once_from_many_is_accepted_once(many: Calls) -> None:
    start = Barrier(RACERS)

    def accept(_: int) -> str:
        start.wait(10)
        [answer] = many.accept(named("alice", "scoped", nr=1))
        return str(answer["outcome"])

    with ThreadPoolExecutor(RACERS) as pool:
        outcomes = sorted(pool.map(accept, range(RACERS)))
    assert outcomes == ["accepted", *["duplicate"] * (RACERS - 1)]
