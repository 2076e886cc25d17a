"""A person who is called differently from now on, or whose number is somebody else's."""

from typing import Any
from uuid import UUID

import pytest

from onelane.bootstrap import Services
from tests.calls import Calls, Item, delivery, lease, settlement
from tests.integration.test_lines import works
from tests.rows import Rows

PHONE, SCOPED, NEW = "+33600000001", "FR.1", "FR.2"


@pytest.fixture
def calls(services: Services) -> Calls:
    return Calls(services.database)


def wrote(nr: int, *senders: str, **extra: Any) -> Item:
    return {**delivery(senders[0], f"m{nr}", f"text {nr}"), "senders": list(senders), **extra}


def changed(nr: int, *senders: str, **extra: Any) -> Item:
    """Make an identity change: adds, drops, has_new_owner."""
    return {
        **wrote(0, *senders),
        "external_id": f"i{nr}",
        "text": "",
        "kind": "event",
        "event": "identity_changed",
        **extra,
    }


def names(services: Services, user_id: str) -> set[str]:
    rows = services.database.rows("SELECT alias FROM user_aliases WHERE user_id = %s", (user_id,))
    return {row.alias for row in rows}


PHASES = (
    wrote(1, PHONE),
    wrote(2, PHONE, SCOPED),
    wrote(3, SCOPED),
    changed(1, SCOPED, adds=[NEW], drops=[SCOPED]),
    wrote(4, NEW),
)


def test_phone_then_scoped_id_then_a_new_one_is_one_user_with_one_session(
    services: Services, calls: Calls, rows: Rows
) -> None:
    answers = [calls.accept(one)[0] for one in PHASES]
    assert [one["outcome"] for one in answers] == ["accepted"] * 5
    assert [one["seq"] for one in answers] == [1, 2, 3, 4, 5]
    [user_id] = {one["user_id"] for one in answers}
    works(calls, user_id)
    assert rows.shape(UUID(user_id)) == [([1, 2, 3, 5], None)]
    assert names(services, user_id) == {PHONE, NEW}
    assert rows.user(UUID(user_id)).sender == NEW
    again = [calls.accept(one)[0]["outcome"] for one in reversed(PHASES)]
    assert again == ["duplicate"] * 5
    assert names(services, user_id) == {PHONE, NEW}, "what is delivered again brings no name back"
    assert len(rows.senders()) == 1


def test_a_change_that_comes_first_links_what_comes_later(services: Services, calls: Calls) -> None:
    answers = calls.accept(changed(1, SCOPED, adds=[NEW]), wrote(1, NEW), wrote(2, SCOPED))
    assert len({one["user_id"] for one in answers}) == 1
    assert [one["seq"] for one in answers] == [1, 2, 3]


def test_a_dropped_name_is_somebody_elses_from_then_on(calls: Calls, rows: Rows) -> None:
    first, _, stranger = calls.accept(wrote(1, PHONE, SCOPED), changed(1, SCOPED, drops=[PHONE]), wrote(2, PHONE))
    assert stranger["user_id"] != first["user_id"]
    assert rows.user(UUID(first["user_id"])).sender == SCOPED
    assert calls.accept(wrote(1, PHONE, SCOPED))[0]["user_id"] == first["user_id"], "delivered again"
    assert not calls.accept(wrote(3, SCOPED))[0]["has_conflict"]


def test_a_name_that_was_dropped_before_it_was_known_is_dropped_too(services: Services, calls: Calls) -> None:
    [first, *_] = calls.accept(wrote(1, SCOPED), changed(1, SCOPED, drops=[PHONE]), wrote(2, PHONE, SCOPED))
    assert names(services, first["user_id"]) == {SCOPED}
    calls.accept(changed(2, SCOPED, PHONE, adds=[NEW]), changed(3, SCOPED, adds=[PHONE]))
    assert names(services, first["user_id"]) == {SCOPED, NEW, PHONE}


def test_a_name_of_another_user_is_not_dropped_and_not_taken(services: Services, calls: Calls) -> None:
    alice, bob = calls.accept(wrote(1, SCOPED), wrote(2, NEW))
    [answer] = calls.accept(changed(1, SCOPED, adds=[NEW], drops=[NEW]))
    assert (answer["user_id"], answer["has_conflict"]) == (alice["user_id"], True)
    assert names(services, bob["user_id"]) == {NEW}


def test_a_conflict_can_be_seen_of_both_users(services: Services, calls: Calls) -> None:
    phone, scoped = calls.accept(wrote(1, PHONE), wrote(2, SCOPED))
    calls.accept(wrote(3, PHONE, SCOPED))
    calls.accept(wrote(4, SCOPED, PHONE))
    pairs = services.database.rows("SELECT user_id::text, other_id::text FROM identity_conflicts ORDER BY user_id")
    expected = [(phone["user_id"], scoped["user_id"]), (scoped["user_id"], phone["user_id"])]
    assert [tuple(pair) for pair in pairs] == sorted(expected)


def test_a_change_in_a_group_message_makes_senders_no_names_of_the_group(services: Services, calls: Calls) -> None:
    [answer] = calls.accept(wrote(1, PHONE, SCOPED, conversation="group"))
    assert names(services, answer["user_id"]) == {"group"}


def state(rows: Rows, user_id: str) -> tuple[Any, Any]:
    user = rows.user(UUID(user_id))
    return user.state, user.state_aside


def test_a_new_owner_finds_nothing_earlier_until_an_operator_confirms(
    services: Services, calls: Calls, rows: Rows
) -> None:
    [first] = calls.accept(wrote(1, PHONE))
    user_id = first["user_id"]
    works(calls, user_id, user_state={"name": "Ann", "n": 1})
    version = rows.user(UUID(user_id)).version
    [change] = calls.accept(changed(1, PHONE, has_new_owner=True))
    assert not change["is_waiting"]
    assert state(rows, user_id) == ({}, {"name": "Ann", "n": 1})
    assert rows.user(UUID(user_id)).version == version + 1, "a turn that runs has read what is not offered any more"
    calls.accept(wrote(2, PHONE))
    works(calls, user_id, user_state={"n": 2})
    assert rows.shape(UUID(user_id)) == [([1], "operator"), ([3], None)]
    assert calls.accept(changed(1, PHONE, has_new_owner=True))[0]["outcome"] == "duplicate"
    assert state(rows, user_id) == ({"n": 2}, {"name": "Ann", "n": 1})
    services.database.rows("SELECT confirm_user(%s)", (user_id,))
    assert state(rows, user_id) == ({"name": "Ann", "n": 2}, None)
    assert rows.user(UUID(user_id)).owner_changed_at is None


def test_what_waited_before_the_owner_changed_still_is_the_earlier_owners(
    services: Services, calls: Calls, rows: Rows
) -> None:
    first, *_ = calls.accept(wrote(1, PHONE), wrote(2, PHONE), changed(1, PHONE, has_new_owner=True), wrote(3, PHONE))
    user_id = first["user_id"]
    turns = []
    for nr in range(3):
        [begun] = calls.begin(lease(user_id))
        turns.append(begun["turn"]["user"]["state"])
        calls.settle(settlement(begun, user_state={"n": nr}))
    assert turns == [{}, {"n": 0}, {}]
    assert rows.shape(UUID(user_id)) == [([1, 2], "operator"), ([4], None)]
    assert state(rows, user_id) == ({"n": 2}, {"n": 1})


def test_a_confirmation_in_time_puts_nothing_aside(services: Services, calls: Calls, rows: Rows) -> None:
    first, _ = calls.accept(wrote(1, PHONE), changed(1, PHONE, has_new_owner=True))
    services.database.rows("SELECT confirm_user(%s)", (first["user_id"],))
    works(calls, first["user_id"], user_state={"n": 1})
    assert state(rows, first["user_id"]) == ({"n": 1}, None)


def test_what_died_before_the_owner_changed_is_not_redriven_until_confirmed(
    services: Services, calls: Calls, rows: Rows
) -> None:
    [first] = calls.accept(wrote(1, PHONE))
    [begun] = calls.begin(lease(first["user_id"]))
    dead = {**settlement(begun), "failure": {"error": "E", "attempts": 0, "attempts_max": 1, "poison": "skip"}}
    del dead["effects"]
    calls.settle(dead)
    calls.accept(changed(1, PHONE, has_new_owner=True))
    assert rows.redrive(UUID(first["message_id"])) is None
    services.database.rows("SELECT confirm_user(%s)", (first["user_id"],))
    assert str(rows.redrive(UUID(first["message_id"]))) == first["user_id"]
