"""Channels that send to the fakes of their providers, a web that is called back, and the judge of what users saw."""

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import pytest
from werkzeug.serving import make_server

from onelane.bootstrap import Services
from onelane.bot import Turn
from onelane.channels import provider_of
from onelane.channels.sender import Sender
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery
from onelane.outbox import limits, settling
from onelane.postgres.connection import Row
from onelane.testing.fake_providers import FakeProviders, fake_providers
from onelane_web import create_app
from tests.conftest import SECRET, deliver

HANDLER: Final = "tests.outbound:handle"
TOKEN = "0123456789abcdef0123456789abcdef"
CHANNELS: Final[Mapping[str, Channel]] = {
    "meta": Channel(provider="meta", secrets=[TOKEN], access_token="a-system-users-token", phone_number_id="42"),
    "slack": Channel(provider="slack", secrets=[TOKEN], bot_token="xoxb-0123456789abcdef"),
    "standard": Channel(provider="standard", secrets=[SECRET]),
    "telegram": Channel(provider="telegram", secrets=[TOKEN], bot_token=f"123456:{TOKEN}"),
    "twilio": Channel(provider="twilio", secrets=[TOKEN], account_sid=f"AC{0:032x}"),
}
TAKEN: Final = frozenset({"sent", "delivered", "read"})
DEADLINE_S, HOLD_S = 2.0, 1.0
OUT_OF_ORDER = "{user} saw {seen}, and was told {said}"
REPLIES = """
SELECT m.id::text, m.user_id, m.channel, m.text, m.turn_seq, m.ordinal, m.state, m.failure, m.given_up_at,
       o.state AS open
  FROM messages m LEFT JOIN outbox o USING (user_id, turn_seq, ordinal)
 WHERE m.direction = 'out' ORDER BY m.user_id, m.turn_seq, m.ordinal
"""
LEFT = "SELECT (SELECT count(*) FROM inbox) + (SELECT count(*) FROM outbox) AS n"
LEFT_OF = """
SELECT EXISTS (SELECT FROM inbox WHERE user_id = %s) OR EXISTS (SELECT FROM outbox WHERE user_id = %s) AS is_left
"""


def handle(turn: Turn) -> list[str]:
    """Answer three times: what comes after a reply must wait for it."""
    return [f"{turn.message.text}: {number}" for number in (1, 2, 3)]


def say_it_back(turn: Turn) -> str:
    """Answer once."""
    return turn.message.text


@dataclass
class Outbound:
    """A service whose channels send to fakes."""

    services: Services
    settings: Settings
    fakes: FakeProviders

    def write(self, channel: str, *texts: str) -> list[UUID]:
        """Let a user of each text write it; return the users."""
        return [self.write_as(channel, text, text) for text in texts]

    def write_as(self, channel: str, user: str, text: str) -> UUID:
        """Let somebody write; return who it is to the service."""
        persona = provider_of(self.settings.channels[channel]).persona(user)
        line = Delivery(
            senders=persona.senders,
            conversation=persona.conversation,
            route=persona.route,
            external_id=f"m-{uuid4().hex}",
            text=text,
        )
        return deliver(self.services, [line], channel)[0].user_id

    def is_done(self) -> bool:
        """Whether no message and no reply is left to do."""
        return not self.services.database.rows(LEFT)[0].n

    def has_left(self, user_id: UUID) -> bool:
        """Whether a message or a reply of a user is left to do."""
        return self.services.database.rows(LEFT_OF, (user_id, user_id))[0].is_left

    def replies(self) -> list[Row]:
        """List all replies, of each user in their order."""
        return self.services.database.rows(REPLIES)


@contextmanager
def outbound(services: Services, settings: Settings, fakes: FakeProviders) -> Iterator[Outbound]:
    """Serve the web, which the fakes call back, in this process."""
    server = make_server("127.0.0.1", 0, create_app(services), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    fakes.clear()
    fakes.call_back(url=f"http://127.0.0.1:{server.port}")
    try:
        yield Outbound(services, settings, fakes)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def fakes_of(channels: Mapping[str, Channel], folder: Path) -> Iterator[FakeProviders]:
    """Run fakes, with their journal in a folder."""
    with fake_providers(channels, folder / "received.jsonl", callback="http://127.0.0.1:1") as fakes:
        yield fakes


def sending_to(fakes: FakeProviders, channels: Mapping[str, Channel], settings: Settings) -> Settings:
    """Return settings with these channels, which send to their fakes, and wait for little."""
    pointed = {
        name: Channel(**{**_given(fakes.pointed(name, channel)), "public_url": "http://onelane.example"})
        for name, channel in channels.items()
    }
    return settings.model_copy(
        update={
            "channels": pointed,
            "handler": HANDLER,
            "send_deadline_s": DEADLINE_S,
            "unknown_hold_s": HOLD_S,
            "send_slots": 100,
        }
    )


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what this process sends be settled within seconds: all waits shrink together."""
    monkeypatch.setattr(settling, "ENDS_SLACK_S", 1.0)
    monkeypatch.setattr(settling, "LOOK_EVERY_S", 0.5)
    monkeypatch.setattr(settling, "LOOKS_S", 1.0)
    monkeypatch.setattr(Sender, "absent_after_s", 1.0)
    monkeypatch.setattr(limits, "BACKOFF_S", 0.2)
    monkeypatch.setattr(limits, "LIMIT_S", 0.2)


def problems(outbound: Outbound, doubles_are_fine: Iterable[str] = ()) -> list[str]:
    """Say what is wrong with what users saw, beside what the service says of it.

    Each saw every reply at most once, in the order in which the bot gave them; and saw what is said to have been sent.
    """
    seen: defaultdict[str, list[str]] = defaultdict(list)
    for message in outbound.fakes.received.visible():
        if message.copy == 1:
            seen[message.channel, user_of(message.text)].append(message.text)  # type: ignore[index]
    found: list[str] = []
    told: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for reply in outbound.replies():
        told[reply.channel, user_of(reply.text)].append(reply)
    for whose, replies in told.items():
        texts = seen[whose]  # type: ignore[index]
        order = [reply.text for reply in replies if reply.text in texts]
        if texts != order:
            found.append(f"{whose} saw {texts}")
        found += [
            f"{whose}: {reply.text!r} is {reply.state} ({reply.failure}), open {reply.open}, "
            f"seen {texts.count(reply.text)} times"
            for reply in replies
            if not _fits(reply, texts.count(reply.text))
        ]
    return found


def misjudged(outbound: Outbound) -> list[str]:
    """Say which replies are less than the best that a status said of them."""
    ranks = {"sent": 1, "delivered": 2, "read": 3}
    best: defaultdict[str, int] = defaultdict(int)
    for line in outbound.fakes.received.lines("callback"):
        if line["key"] and line["state"] in ranks and 200 <= line["status"] < 300:
            best[line["key"]] = max(best[line["key"]], ranks[line["state"]])
    return [
        f"{reply.text!r} is {reply.state}" for reply in outbound.replies() if ranks.get(reply.state, 0) < best[reply.id]
    ]


def user_of(text: str) -> str:
    """Return what a user wrote whom a reply answers."""
    return text.rpartition(": ")[0] or text


def _fits(reply: Row, times: int) -> bool:
    if reply.open is not None:
        return False
    if reply.state in TAKEN:
        return times == 1
    if reply.state == "unknown":
        return reply.given_up_at is not None and times <= 1
    return reply.state in {"failed", "withheld"} and times == 0


def _given(channel: Channel) -> Mapping[str, object]:
    return {**channel.model_dump(mode="json", exclude_defaults=True), **channel.own}


def by_text(replies: Sequence[Row]) -> dict[str, Row]:
    """Find replies by what they say."""
    return {reply.text: reply for reply in replies}
