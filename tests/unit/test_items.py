"""What accept is asked: what of a delivery is left out, what tells two contents apart, and whose order counts."""

from datetime import UTC, datetime
from typing import Any

import pytest

from onelane.deliveries import Delivery, IdentityChange, Kind
from onelane.inbox.items import Line, content_hash, item_of, kind_of, whose
from onelane.model import Attachment, Author

PLAIN = Delivery(senders=("alice",), external_id="m1", text="hello")


def test_a_plain_message_brings_nothing_but_itself() -> None:
    assert set(item_of(PLAIN)) == {"senders", "external_id", "text", "content_hash"}


def test_an_identity_change_is_an_event_of_its_own_kind() -> None:
    item = item_of(IdentityChange(senders=("old",), external_id="i1", adds=("new",), has_new_owner=True))
    assert (item["kind"], item["event"], item["adds"], item["has_new_owner"]) == (
        *("event", "identity_changed", ["new"], True),
    )
    kinds = [kind_of(item), *(kind_of(item_of(PLAIN.model_copy(update={"kind": kind}))) for kind in Kind)]
    assert kinds == ["identity", "message", "event", "echo"]


SAME: dict[str, Any] = {
    "senders": ("alice", "+336"),
    "sent_at": datetime(2026, 1, 1, tzinfo=UTC),
    "mentioned": True,
    "raw": {"envelope": 2},
    "route": {"from": "+1"},
    "repairs": ("nul",),
}
OTHER: dict[str, Any] = {
    "text": "hullo",
    "kind": Kind.EVENT,
    "event": "edited",
    "button": "yes",
    "attachments": (Attachment(id="1"),),
    "parts": {"order": {}},
    "quoted": "m0",
    "author": Author(id="bob"),
    "conversation": "group",
    "closes": True,
}


@pytest.mark.parametrize("name", [*SAME, *OTHER])
def test_a_redelivery_is_another_when_what_is_said_differs_and_not_its_envelope(name: str) -> None:
    again = PLAIN.model_copy(update={name: (SAME | OTHER)[name]})
    assert (item_of(again)["content_hash"] == item_of(PLAIN)["content_hash"]) == (name in SAME)


def test_a_hash_fits_eight_bytes() -> None:
    hashes = [content_hash({"text": str(nr)}) for nr in range(100)]
    assert all(-(2**63) <= one < 2**63 for one in hashes)
    assert len(set(hashes)) == 100


def test_what_shares_a_name_is_one_users_also_by_way_of_a_later_line() -> None:
    lines: list[Line] = [
        Delivery(senders=("a",), external_id="1"),
        Delivery(senders=("b",), external_id="2"),
        Delivery(senders=("c",), external_id="3"),
        IdentityChange(senders=("a",), adds=("b",), external_id="4"),
        Delivery(senders=("b",), external_id="5"),
        Delivery(senders=("a",), conversation="group", external_id="6"),
    ]
    a, b, c, change, later, group = whose([item_of(line) for line in lines])
    assert a == b == change == later
    assert len({a, c, group}) == 3
