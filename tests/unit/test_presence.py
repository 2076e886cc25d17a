"""What users see before the reply: shown as a turn begins, again while it runs, and never waited for."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from onelane.channels import providers
from onelane.channels.telegram.sending import TelegramSender
from onelane.config import Channel, Settings
from onelane.model import JsonObject, Message, SessionRead, TurnRead, UserRead
from onelane.outbox import presence
from onelane.outbox.broken import BrokenChannels
from onelane.outbox.presence import AT_ONCE_MAX, FAILURES_MAX, Presence, Signs
from onelane.telemetry.counters import counters
from onelane.turns.event_loop import EventLoop
from tests import loops
from tests.conftest import DEADLINE_S, SECRET, LogLines

TOKEN = "123456:0123456789abcdef0123456789abcdef"
CHANNELS: dict[str, dict[str, Any]] = {
    "telegram": {"provider": "telegram", "secrets": ("a" * 16,), "bot_token": TOKEN},
    "meta": {"provider": "meta", "secrets": ("a" * 16,), "access_token": "EAAGtokenOfMeta0123"},
    "slack": {"provider": "slack", "secrets": ("a" * 16,), "bot_token": "xoxb-tokenOfSlack0123"},
    "twilio": {"provider": "twilio", "secrets": ("a" * 16,), "account_sid": f"AC{'0' * 32}"},
    "demo": {"provider": "demo", "secrets": (SECRET,)},
}
ROUTES: dict[str, JsonObject] = {
    "telegram": {"chat_id": 7},
    "meta": {"phone_number_id": "100"},
    "slack": {"channel": "C1", "thread_ts": "1.2"},
}


@dataclass
class Net:
    """What the providers are asked, and how they answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    asked: list[str] = field(default_factory=list)
    contents: list[JsonObject] = field(default_factory=list)

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request.url.path.rpartition("/")[2])
        self.contents.append(json.loads(request.content or b"{}"))
        if self.silent:
            await asyncio.sleep(DEADLINE_S)
        return httpx2.Response(self.status, headers=self.headers, json={"ok": self.status == 200})


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    net = Net()
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(net.answer))
    monkeypatch.setattr(presence, "open_client", lambda sender, most: client)
    return net


class Broken(BrokenChannels):
    """One channel is broken, as if Postgres said so."""

    def __init__(self, channel: str) -> None:
        self._known = frozenset([channel])

    def start(self) -> None:
        """Read nothing."""


def opened(*, broken: str = "", **more: Any) -> Presence:
    channels = {name: Channel(**{**own, **more}) for name, own in CHANNELS.items()}
    settings = Settings(database_url="postgresql://h/d", redis_url="redis://h", channels=channels)
    return Presence(settings, providers(channels), EventLoop("signs"), Broken(broken))


def turn_on(channel: str, **more: Any) -> TurnRead:
    message = {
        "id": uuid4(),
        "seq": 1,
        "text": "hello",
        "button": None,
        "attachments": (),
        "accepted_at": datetime.now(UTC),
        "attempts": 0,
        "external_id": "7:1",
        "route": ROUTES.get(channel),
    }
    return TurnRead(
        version=0,
        messages=(Message(**{**message, **more}),),
        user=UserRead(id=uuid4(), channel=channel, sender="whatsapp:+15550101", state={}),
        session=SessionRead(id=uuid4(), status="active", started_at=datetime.now(UTC), state={}),
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def rounds() -> None:
    """Let everything that waits for nothing but its turn on the loop come to its end, however slow the machine is."""
    for _ in range(200):
        await asyncio.sleep(0)


def run(steps: Coroutine[Any, Any, None]) -> None:
    loops.run(steps)


def numbers(name: str) -> dict[str, int]:
    return {field.rpartition(":")[2]: number for field, number in counters.take().items() if field.startswith(name)}


def test_typing_is_shown_as_a_turn_begins_and_while_it_runs_and_not_after(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TelegramSender, "typing_every_s", 0.01)
    signs = opened()

    async def steps() -> None:
        with signs.during(turn_on("telegram")):
            await until(lambda: len(net.asked) >= 3)
        await asyncio.sleep(0)
        shown = len(net.asked)
        await asyncio.sleep(0.05)
        assert len(net.asked) == shown

    run(steps())
    assert set(net.asked) == {"sendChatAction"}


def test_a_handler_that_hangs_shows_no_sign_for_longer_than_a_turn_may_take(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TelegramSender, "typing_every_s", 0.02)
    signs = opened()
    signs._most_s = 0.05

    async def steps() -> None:
        with signs.during(turn_on("telegram")):
            await asyncio.sleep(0.2)

    run(steps())
    assert len(net.asked) <= 3


@pytest.mark.parametrize(
    ("channel", "setting", "asked"),
    [
        ("telegram", None, ["sendChatAction"]),
        ("telegram", "seen", []),
        ("meta", None, ["messages"]),
        ("meta", "seen", ["messages"]),
        ("slack", None, ["assistant.threads.setStatus"]),
        ("twilio", None, []),
        ("demo", "typing", []),
        *((channel, "none", []) for channel in CHANNELS),
    ],
)
def test_each_channel_shows_what_its_provider_has_and_its_setting_says(
    net: Net, channel: str, setting: str | None, asked: list[str]
) -> None:
    signs = opened(presence=setting)

    async def steps() -> None:
        with signs.during(turn_on(channel)):
            await until(lambda: len(net.asked) >= len(asked))
            await asyncio.sleep(0)

    run(steps())
    assert net.asked == asked
    if channel == "meta" and asked:
        assert net.contents[0]["status"] == "read"
        assert ("typing_indicator" in net.contents[0]) == (setting is None)


@pytest.mark.parametrize("setting", ["none", "seen", "typing"])
def test_a_pressed_button_waits_no_longer_whatever_else_is_shown(net: Net, setting: str) -> None:
    signs = opened(presence=setting)
    asked = ["answerCallbackQuery", *(["sendChatAction"] if setting == "typing" else [])]

    async def steps() -> None:
        with signs.during(turn_on("telegram", button="yes", route={"chat_id": 7, "callback_query_id": "9"})):
            await until(lambda: len(net.asked) >= len(asked))

    run(steps())
    assert net.asked == asked


def test_events_and_channels_that_are_broken_show_nothing(net: Net) -> None:
    signs = opened(broken="meta")

    async def steps() -> None:
        with signs.during(turn_on("telegram", kind="event", event="reaction")), signs.during(turn_on("meta")):
            await rounds()

    run(steps())
    assert net.asked == []


def test_a_silent_provider_delays_no_turn_and_of_too_many_signs_the_last_are_left_out(net: Net) -> None:
    net.silent = True
    signs = opened()
    counters.take()

    async def steps() -> None:
        async with asyncio.timeout(DEADLINE_S / 2):
            for _ in range(AT_ONCE_MAX + 3):
                with signs.during(turn_on("telegram")):
                    await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    run(steps())
    assert len(net.asked) == AT_ONCE_MAX
    assert numbers("onelane_signs") == {"left_out": 3}


def channel_of(signs: Presence, name: str, now: list[float]) -> Signs:
    signs._ways[name]._now = lambda: now[0]
    return signs._ways[name]


def test_a_provider_that_wants_no_more_signs_gets_none_for_as_long_as_it_says(net: Net, log_lines: LogLines) -> None:
    signs, now = opened(), [0.0]
    channel_of(signs, "telegram", now)

    async def shown() -> int:
        before = len(net.asked)
        with signs.during(turn_on("telegram")):
            await rounds()
        return len(net.asked) - before

    async def steps() -> None:
        net.status, net.headers = 429, {"Retry-After": "30"}
        assert await shown() == 1
        now[0] = 29
        assert await shown() == 0
        now[0], net.status, net.headers = 31, 200, {}
        assert await shown() == 1

    run(steps())
    [line] = [line for line in log_lines if line["event"] == "signs_paused"]
    assert (line["channel"], line["why"], line["seconds"]) == ("telegram", "429", 30)


def test_a_provider_that_refuses_several_signs_in_a_row_gets_none_for_a_minute(net: Net) -> None:
    signs, now = opened(), [0.0]
    channel_of(signs, "telegram", now)

    async def steps() -> None:
        net.status = 403
        for _ in range(FAILURES_MAX + 3):
            with signs.during(turn_on("telegram")):
                await rounds()
        assert len(net.asked) == FAILURES_MAX
        now[0] = 61
        with signs.during(turn_on("telegram")):
            await until(lambda: len(net.asked) == FAILURES_MAX + 1)

    run(steps())


@pytest.mark.parametrize("newer", [0, 1], ids=["alone", "a batch"])
def test_the_first_sign_of_a_message_is_measured_once(net: Net, monkeypatch: pytest.MonkeyPatch, newer: int) -> None:
    monkeypatch.setattr(TelegramSender, "typing_every_s", 0.01)
    signs = opened()
    counters.take()

    async def steps() -> None:
        for attempts in (0, 1):
            before = len(net.asked)
            batch = turn_on("telegram", attempts=attempts).widened(newer * turn_on("telegram").messages)
            with signs.during(batch):
                await until(lambda before=before: len(net.asked) >= before + 2)  # type: ignore[misc]
            await rounds()

    run(steps())
    gathered = counters.take()
    assert sum(n for name, n in gathered.items() if name.startswith("onelane_first_sign") and "us" not in name) == 1
    assert gathered["onelane_signs:shown"] >= 4
