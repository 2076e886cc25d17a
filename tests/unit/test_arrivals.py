"""What a message's arrival asks of its lane, by its channel's way with those that are busy."""

from typing import Any
from uuid import UUID

import pytest

from onelane.config import Channel
from onelane.lanes.arrivals import Arrival, Wait, arrival
from tests.calls import Item

USER, MESSAGE = UUID(int=1), UUID(int=2)
WAIT = Wait(quiet_ms=1_000, longest_ms=8_000, most=20, is_over=False)
OVER = Wait(quiet_ms=1_000, longest_ms=8_000, most=20, is_over=True)
TEXT: Item = {"text": "hello"}
PHOTO: Item = {"attachments": [{"url": "https://x.example/1.jpg"}]}
COMMAND: Item = {"text": "/help", "closes": True}
EVENT: Item = {"kind": "event", "event": "reaction"}


def arrived(line: Item, **how: Any) -> Arrival:
    channel = Channel(provider="demo", **how)
    return arrival(channel, line, {"user_id": str(USER), "message_id": str(MESSAGE), "seq": 7})


@pytest.mark.parametrize("on_busy", ["queue", "reject"])
@pytest.mark.parametrize("line", [TEXT, PHOTO, COMMAND, EVENT])
def test_most_channels_ask_for_nothing_more_than_a_place(on_busy: str, line: Item) -> None:
    assert arrived(line, on_busy=on_busy) == Arrival(USER, MESSAGE)
    assert arrived(line, on_busy=on_busy).item([]).keys() == {"user", "id", "fields"}


@pytest.mark.parametrize(
    ("line", "texts_wait", "wait"),
    [
        (TEXT, True, WAIT),
        (PHOTO, True, WAIT),
        (COMMAND, True, OVER),
        (EVENT, True, OVER),
        (TEXT, False, OVER),
        (PHOTO, False, WAIT),
        (PHOTO | TEXT, False, WAIT),
    ],
)
def test_a_channel_that_collects_waits_for_more_unless_the_message_ends_that(
    line: Item, texts_wait: bool, wait: Wait
) -> None:
    assert arrived(line, on_busy="collect", collect_text_waits=texts_wait) == Arrival(USER, MESSAGE, wait=wait)


@pytest.mark.parametrize(("line", "newer"), [(TEXT, 7), (PHOTO, 7), (COMMAND, None), (EVENT, None)])
def test_a_channel_that_interrupts_names_what_may_throw_a_turn_away(line: Item, newer: int | None) -> None:
    assert arrived(line, on_busy="interrupt") == Arrival(USER, MESSAGE, newer=newer)
