"""The acts of an operator: each that took effect is recorded once, one that did nothing is not."""

from collections.abc import Callable, MutableMapping
from typing import Any
from uuid import uuid4

from onelane.bootstrap import Services
from onelane.deliveries import Accepted
from tests.by_hand import ByHand

ACTS = {
    "user_paused",
    "user_resumed",
    "message_redriven",
    "message_dropped",
    "session_end_requested",
    "session_escalated",
    "session_handed_back",
    "user_opted_in",
    "owner_confirmed",
    "users_merged",
}
Lines = list[MutableMapping[str, Any]]


def recorded(lines: Lines) -> list[str]:
    return [line["event"] for line in lines if line["event"] in ACTS]


def test_every_act_that_took_effect_is_recorded_once(
    services: Services, accept: Callable[..., Accepted], log_lines: Lines
) -> None:
    acts, message = services.acts, accept("alice")
    acts.pause(message.user_id, by="ann")
    acts.resume(message.user_id, by="ann")
    _begin_and_fail(services, message)
    acts.retry(message.message_id, by="ann")
    _begin_and_fail(services, message)
    acts.drop(message.message_id, by="ann")
    acts.escalate(message.user_id, by="ann")
    acts.hand_back(message.user_id, by="ann")
    acts.end_session(message.user_id, by="ann")
    rows = services.database.rows
    rows("UPDATE users SET opted_out_at = now(), owner_changed_at = now() WHERE id = %s", (message.user_id,))
    acts.opt_in(message.user_id, by="ann")
    acts.confirm(message.user_id, by="ann")
    acts.merge(message.user_id, accept("bob").user_id, by="ann")
    names = recorded(log_lines)
    assert sorted(names) == sorted(ACTS)
    audit = services.database.rows("SELECT who, act, subject FROM audit ORDER BY nr")
    assert [row.act for row in audit] == names
    assert {(row.who, row.subject) for row in audit} == {("ann", str(message.user_id))}
    assert {line["user_id"] for line in log_lines if line["event"] in ACTS} == {str(message.user_id)}


def test_an_act_that_found_nothing_to_do_is_not_recorded(services: Services, log_lines: Lines) -> None:
    acts = services.acts
    for act in (acts.pause, acts.resume, acts.retry, acts.drop, acts.opt_in, acts.confirm):
        assert not act(uuid4(), by="ann").did
    assert acts.merge(uuid4(), uuid4(), by="ann") is None
    for ask in (services.acts.end_session, services.acts.escalate, services.acts.hand_back):
        assert ask(uuid4(), by="ann") is None
    assert services.acts.redrive(by="ann") == []
    assert recorded(log_lines) == []
    assert services.database.rows("SELECT FROM audit") == []


def test_what_is_so_already_is_not_done_again(
    services: Services, accept: Callable[..., Accepted], log_lines: Lines
) -> None:
    acts, message = services.acts, accept("alice")
    assert [acts.pause(message.user_id, by="ann").did for _ in range(2)] == [True, False]
    assert [acts.resume(message.user_id, by="ann").did for _ in range(2)] == [True, False]
    _begin_and_fail(services, message)
    assert [acts.drop(message.message_id, by="ann").did for _ in range(2)] == [True, False]
    assert recorded(log_lines) == ["user_paused", "user_resumed", "message_dropped"]
    assert len(services.database.rows("SELECT FROM audit")) == 3


def _begin_and_fail(services: Services, message: Accepted) -> None:
    """Let the message die in its first attempt."""
    fence = services.lanes.raise_fence(0) + 1
    services.lanes.raise_fence(fence)
    by_hand = ByHand(services.database, user_id=message.user_id)
    assert by_hand.fail(by_hand.begin(fence=fence), fence=fence).outcome == "dead"
