"""Several bots in one worker: each channel's own, in the worker's process and in a suspect's child."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from onelane.bootstrap import Services
from onelane.bot import Turn
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery, Kind
from onelane.model import Author, Message
from tests.conftest import SECRET, RunWorker, deliver, eventually
from tests.rows import Rows
from tests.working_off import work_off

DEAF = "onelane.handlers.echo:handle"
"""A handler whose module has no function for events."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Two channels: `demo` has the default, an echo, `events` a bot of its own."""
    own = Channel(provider="standard", secrets=(SECRET,), handler="tests.eventful:handle")
    return settings.model_copy(update={"handler": DEAF, "channels": {**settings.channels, "events": own}})


def send(services: Services, channel: str, text: str, **fields: object) -> UUID:
    delivery = Delivery(senders=("alice",), external_id=uuid4().hex, text=text, **fields)  # type: ignore[arg-type]
    return deliver(services, [delivery], channel)[0].user_id


def send_as(services: Services, text: str, **fields: Any) -> str:
    """Let Alice send to `demo`; return the provider's id."""
    delivery = Delivery(senders=("alice",), external_id=uuid4().hex, text=text, **fields)
    deliver(services, [delivery])
    return delivery.external_id


def test_each_channels_turns_run_its_own_bot(
    services: Services, settings: Settings, rows: Rows, run_worker: RunWorker
) -> None:
    users = {channel: send(services, channel, "hello") for channel in settings.channels}
    with run_worker(settings):
        eventually(lambda: all(rows.texts(user_id) for user_id in users.values()))
    assert {channel: rows.texts(user_id) for channel, user_id in users.items()} == {
        "demo": ["hello"],
        "events": ["heard: hello"],
    }


@pytest.mark.slow
def test_a_suspect_runs_apart_in_its_own_channels_bot(
    services: Services, settings: Settings, rows: Rows, run_worker: RunWorker
) -> None:
    user_id = send(services, "events", "hello")
    services.database.rows("UPDATE inbox SET deaths = 2")
    with run_worker(settings):
        eventually(lambda: rows.texts(user_id) == ["heard: hello"])


@pytest.mark.parametrize("deaths", [0, 2], ids=["in the worker", "apart"])
def test_an_event_that_waits_runs_the_function_for_events_and_its_replies_are_committed(
    deaths: int, services: Services, settings: Settings, rows: Rows, run_worker: RunWorker
) -> None:
    with run_worker(settings):
        eventually(lambda: services.database.rows("SELECT FROM channel_policies WHERE wants_events") != [])
        user_id = send(services, "events", "", kind=Kind.EVENT, event="reaction")
        eventually(lambda: rows.texts(user_id) == ["saw a reaction"])


def test_an_event_whose_bot_takes_none_any_more_is_settled_without_a_handler(
    services: Services, settings: Settings, rows: Rows, run_worker: RunWorker
) -> None:
    user_id = send(services, "demo", "hello")
    services.database.rows("UPDATE inbox SET kind = 'event'")
    with run_worker(settings):
        eventually(lambda: services.database.rows("SELECT FROM inbox") == [])
    assert rows.texts(user_id) == []


def test_workers_publish_for_which_channels_events_make_turns(
    services: Services, settings: Settings, run_worker: RunWorker
) -> None:
    def published() -> list[tuple[str, bool]]:
        rows = services.database.rows("SELECT channel, wants_events FROM channel_policies ORDER BY channel")
        return [tuple(row) for row in rows]

    with run_worker(settings):
        eventually(lambda: published() == [("demo", False), ("events", True)])


def test_a_turn_has_all_that_the_delivery_had(
    services: Services, settings: Settings, run_worker: RunWorker, rows: Rows
) -> None:
    sent_at = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
    fields: dict[str, Any] = {
        "parts": {"location": {"latitude": 1.5, "longitude": 2}},
        "raw": {"whole": ["object"]},
        "quoted": "m0",
        "author": Author(id="a1", name="Alice"),
        "mentioned": True,
        "repairs": ("nul",),
        "sent_at": sent_at,
    }
    seen: list[Message] = []
    send(services, "demo", "here", **fields)
    work_off(services, settings, lambda turn: seen.append(turn.message))
    [message] = seen
    assert {name: getattr(message, name) for name in fields} == fields
    assert (message.kind, message.event) == ("message", None)


def test_history_shows_who_said_it_what_was_edited_and_nothing_that_was_deleted(
    services: Services, settings: Settings
) -> None:
    seen: list[list[tuple[str, str | None, str]]] = []

    def look(turn: Turn) -> None:
        seen.append([(line.role, line.event, line.text) for line in turn.history()])

    ids = [send_as(services, text) for text in ("one", "two")]
    work_off(services, settings, look)
    send_as(services, "one, mended", kind=Kind.EVENT, event="edited", quoted=ids[0])
    send_as(services, "", kind=Kind.EVENT, event="deleted", quoted=ids[1])
    send_as(services, "a colleague", kind=Kind.ECHO)
    services.sessions.hand_back(send(services, "demo", "three"))
    work_off(services, settings, look)
    assert seen[-1] == [
        ("user", None, "one, mended"),
        ("user", None, ""),
        ("event", "edited", "one, mended"),
        ("event", "deleted", ""),
        ("agent", None, "a colleague"),
    ]
