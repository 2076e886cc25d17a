"""Several bots in one worker: each channel's own, in the worker's process and in a suspect's child."""

from uuid import UUID, uuid4

import pytest

from onelane.bootstrap import Services
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery, Kind
from tests.conftest import SECRET, RunWorker, eventually
from tests.rows import Rows

DEAF = "onelane.handlers.echo:handle"
"""A handler whose module has no function for events."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Two channels: `demo` has the default, an echo, `events` a bot of its own."""
    own = Channel(provider="standard", secrets=(SECRET,), handler="tests.eventful:handle")
    return settings.model_copy(update={"handler": DEAF, "channels": {**settings.channels, "events": own}})


def send(services: Services, channel: str, text: str, **fields: object) -> UUID:
    delivery = Delivery(senders=("alice",), external_id=uuid4().hex, text=text, **fields)  # type: ignore[arg-type]
    return services.intake.accept(channel, [delivery])[0].user_id


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
