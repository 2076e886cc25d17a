"""A channel that can send nothing now: the lanes of its users wait together, and hold up no other channel's replies."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onelane import keys
from onelane.bootstrap import Services, open_services
from onelane.config import Settings
from onelane.lanes.lanes import Due
from onelane.lanes.scripts import text_of
from onelane.sessions import publish_policies
from onelane.testing.fake_providers import Fault
from tests.conftest import RunWorker, eventually, slow_after
from tests.outbox_fakes import Chat, sending_to_fakes

USERS = 300
SLOW_S = 2.0


@pytest.fixture
def chat(services: Services, settings: Settings, tmp_path: Path) -> Iterator[Chat]:
    with sending_to_fakes(settings, tmp_path, "telegram", "standard") as (fakes, pointed):
        publish_policies(services.database, pointed.policies)
        sending = open_services(pointed, redis_timeout_s=3)
        yield Chat(sending, pointed, fakes)
        sending.close()


def slow(chat: Chat) -> None:
    chat.fakes.play(Fault("answer", times=1, wait_s=SLOW_S), share=1, channel="telegram")


def broken(chat: Chat) -> None:
    chat.services.database.rows(
        "INSERT INTO channel_holds (channel, broken_at, word, probe_at)"
        " VALUES ('telegram', now(), 'bad_token', now() + interval '1 hour')"
    )


def limited(chat: Chat) -> None:
    chat.services.database.rows(
        "INSERT INTO channel_holds (channel, not_before) VALUES ('telegram', now() + interval '1 hour')"
    )


def leases(chat: Chat) -> int:
    """Count the leases ever given: each has a fence of its own."""
    return int(text_of(chat.services.out_lanes.client.get(keys.FENCE) or "0"))


def look(chat: Chat) -> Due:
    return chat.services.out_lanes.longest_due(USERS)


@pytest.mark.parametrize("stop", slow_after(1, [broken, slow, limited]), ids=lambda stop: stop.__name__)
def test_lanes_that_would_be_leased_in_vain_are_not(
    chat: Chat, run_worker: RunWorker, stop: Callable[[Chat], None]
) -> None:
    lanes, client = chat.services.out_lanes, chat.services.out_lanes.client
    with run_worker(chat.settings.model_copy(update={"worker_kinds": (keys.IN,)})):
        for nr in range(USERS):
            chat.write("telegram", f"user {nr}", "hello")
        eventually(lambda: client.zcard(keys.lanes(keys.OUT)) == USERS)
        other = chat.write("standard", "bob", "hello")
        eventually(lambda: lanes.scores([other]) != [None])
        assert look(chat).workers == 0  # of replies
    stop(chat)
    before = leases(chat)
    with run_worker(chat.settings.model_copy(update={"worker_kinds": (keys.OUT,), "send_slots": 8})):
        eventually(lambda: chat.states(other) == ["sent"])
        assert leases(chat) - before < USERS / 2
        eventually(lambda: not look(chat).users)
        eventually(lambda: look(chat).workers == 1)
    assert leases(chat) - before < USERS


@pytest.mark.slow
def test_a_worker_that_lacks_a_channel_takes_no_lanes_from_one_that_has_it(chat: Chat, run_worker: RunWorker) -> None:
    """As in a deploy that adds a channel: it parks what it has leased itself, and leaves what it could not."""
    few = chat.settings.model_copy(update={"worker_kinds": (keys.IN,)})
    with run_worker(few):
        users = [chat.write("telegram", f"user {nr}", "hello") for nr in range(3)]
        eventually(lambda: chat.services.out_lanes.client.zcard(keys.lanes(keys.OUT)) == len(users))
    channels = {name: channel for name, channel in chat.settings.channels.items() if name != "telegram"}
    lacking = {"worker_kinds": (keys.OUT,), "channels": channels, "send_slots": 1}
    before = leases(chat)
    with run_worker(chat.settings.model_copy(update=lacking)):
        eventually(lambda: not look(chat).users)
    assert leases(chat) - before == len(users)
