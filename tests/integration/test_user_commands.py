"""`onelane user`: who a user is, by any name; merged, confirmed, opted in. No name is shown."""

from uuid import UUID

import pytest

from onelane.bootstrap import Services
from tests.calls import Calls, delivery
from tests.integration.test_commands import SENDER, Ask, Invoke
from tests.integration.test_commands import ask as ask  # noqa: PLC0414 - a fixture
from tests.integration.test_commands import invoke as invoke  # noqa: PLC0414 - as above
from tests.rows import Rows


@pytest.fixture
def calls(services: Services) -> Calls:
    return Calls(services.database)


def test_a_conflict_is_shown_of_both_and_over_once_they_are_merged(calls: Calls, ask: Ask, invoke: Invoke) -> None:
    phone, scoped = (one["user_id"] for one in calls.accept(delivery(SENDER, "m1"), delivery("scoped", "m2")))
    calls.accept({**delivery("scoped", "m3"), "senders": ["scoped", SENDER]})
    assert ask("user", "show", f"demo:{SENDER}")["identity"]["conflicts"] == [scoped]
    assert f"perhaps the same as {phone}" in invoke("user", "show", scoped).output
    assert ask("user", "merge", f"demo:{SENDER}", "demo:scoped") == {
        "user_id": phone,
        "merged_id": scoped,
        "did": True,
        "moved": 1,
        "redis": True,
    }
    shown = ask("user", "show", "demo:scoped")
    assert (shown["user"]["id"], shown["user"]["waiting"]) == (phone, 3)
    assert (shown["identity"]["names"], shown["identity"]["merged"], shown["identity"]["conflicts"]) == (
        2,
        [scoped],
        [],
    )
    assert ask("user", "show", scoped)["identity"]["merged_into"] == phone
    assert "before" in invoke("user", "merge", phone, scoped).output
    assert "cannot be merged" in invoke("user", "merge", scoped, phone, exit_code=1).output


def test_a_new_owner_and_an_opting_out_are_shown_and_lifted(calls: Calls, invoke: Invoke, rows: Rows) -> None:
    changed = delivery(SENDER, "m1", "", kind="event", event="identity_changed", has_new_owner=True)
    out = delivery(SENDER, "m2", "", kind="event", event="opted_out")
    user_id = calls.accept(changed, out)[0]["user_id"]
    shown = invoke("user", "show", f"demo:{SENDER}").output
    assert "opted out  since" in shown
    assert "owner      perhaps another since" in shown
    for act, did, again in (
        ("confirm", "confirmed", "no change of owner to confirm"),
        ("opt-in", "opted in", "had not opted out"),
    ):
        assert invoke("user", act, user_id).output == f"user {user_id}: {did}\n"
        assert invoke("user", act, user_id).output == f"user {user_id}: {again}\n"
    user = rows.user(UUID(user_id))
    assert (user.owner_changed_at, user.opted_out_at) == (None, None)
