"""Messages that come faster than the bot answers, on real servers: one turn for many, a wait that outlives Redis."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any
from uuid import UUID

import pytest

from onelane.bootstrap import Services, open_services
from onelane.bot import Handler, Turn
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.model import Attachment
from tests.calls import Item
from tests.lane_state import due_ms, now_ms
from tests.rows import Rows
from tests.working_off import work_off

LONG: Item = {"on_busy": "collect", "collect_quiet_s": 50, "collect_max_s": 100}
"""A wait longer than any test."""


class Chat:
    """Somebody who writes, on a channel that is configured in one way."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.rows = Rows(services.database)
        self._count = 0
        self.user_id: UUID

    def write(self, *texts: str, **more: Any) -> None:
        """Write some messages, each a delivery of its own."""
        for text in texts:
            self._count += 1
            delivery = Delivery(senders=("alice",), external_id=f"m{self._count}", text=text, **more)
            self.user_id = self.services.intake.accept("demo", [delivery])[0].user_id

    def work_off(self, handler: Handler | None = None) -> list[str]:
        """Run all that waits, or will soon; return what was answered."""
        work_off(self.services, self.services.settings, handler or numbered, patience_s=2)
        return [row.text for row in self.rows.replies(self.user_id)]

    @property
    def waits_s(self) -> float:
        """In how many seconds the lane is due."""
        return (due_ms(self.services, self.user_id) - now_ms(self.services)) / 1000


def numbered(turn: Turn) -> str:
    """Answer with what was asked, so that a reply says which messages it is for."""
    return " ".join(message.text for message in turn.messages)


Begin = Callable[..., Chat]


@pytest.fixture
def chat(services: Services, settings: Settings) -> Iterator[Begin]:
    """Make a chat on a channel with the fields given; `services` has emptied the servers."""
    with ExitStack() as stack:

        def begin(**how: Any) -> Chat:
            channel = settings.channels["demo"].model_copy(update=how)
            with_channel = settings.model_copy(update={"channels": {"demo": channel}})
            vars(with_channel).pop("policies", None)  # those of the settings that were copied
            return Chat(stack.enter_context(closing(open_services(with_channel, redis_timeout_s=3))))

        yield begin


def test_what_is_written_within_a_moment_is_answered_together(chat: Begin) -> None:
    alice = chat(on_busy="collect", collect_quiet_s=0.3)
    alice.write("one", "two", "three")
    assert alice.work_off() == ["one two three"]


def test_what_closes_a_batch_ends_the_wait_and_is_answered_alone(chat: Begin) -> None:
    alice = chat(**LONG)
    alice.write("one", "two")
    assert alice.waits_s > 2
    alice.write("/help", closes=True)
    assert alice.work_off() == ["one two", "/help"]


def test_a_full_batch_waits_for_no_more(chat: Begin) -> None:
    alice = chat(**LONG, collect_max_messages=3)
    alice.write(*"abc")
    assert alice.work_off() == ["a b c"]


def test_where_texts_do_not_wait_a_photo_does_and_its_caption_ends_that(chat: Begin) -> None:
    alice = chat(**LONG, collect_text_waits=False)
    alice.write("photo", attachments=(Attachment(url="https://x.example/1.jpg"),))
    assert alice.waits_s > 2
    alice.write("caption")
    assert alice.work_off() == ["photo caption"]


def test_what_comes_while_a_turn_runs_waits_for_nothing_else(chat: Begin) -> None:
    alice = chat(**LONG, collect_max_messages=3)

    def answer(turn: Turn) -> str:
        if turn.message.text == "c":
            alice.write("d", "e")
        return numbered(turn)

    alice.write(*"abc")
    assert alice.work_off(answer) == ["a b c", "d e"]


def test_neither_a_redelivery_nor_the_reconciler_moves_the_end_of_a_wait(chat: Begin) -> None:
    alice = chat(**LONG)
    alice.write("one")
    ends = due_ms(alice.services, alice.user_id)
    alice.services.intake.accept("demo", [Delivery(senders=("alice",), external_id="m1", text="one")])
    alice.services.lanes.bring_back([alice.user_id])
    assert due_ms(alice.services, alice.user_id) == ends


def test_a_redis_that_forgets_a_wait_ends_it_and_all_are_answered_together(chat: Begin) -> None:
    alice = chat(**LONG)
    alice.write("one", "two")
    alice.services.lanes.client.flushall()
    alice.services.lanes.bring_back([alice.user_id])  # as the reconciler does
    assert alice.work_off() == ["one two"]
