"""A storm of replies against the fake of Slack's API, judged by what the fake made visible to users."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.measuring import Figures
from bench.stack import STOP_S, fresh
from onelane.channels import provider_of
from onelane.config import Channel
from onelane.deliveries import Delivery
from onelane.dev.stack import WORKER
from onelane.testing.fake_providers import FakeProviders, Fault, fake_providers

CHANNEL = "slack"
TOKEN = "xoxb-of-the-benchmark-0123456789"  # noqa: S105 - opens nothing
SLACK = Channel(provider="slack", secrets=("a-signing-secret-of-the-benchmark",), bot_token=TOKEN)
FAULTS: Sequence[Fault] = (
    Fault("closed"),
    Fault("closed", times=1),
    Fault("reset", times=1),
    Fault("half", times=1),
    Fault("garbage"),
    Fault("silent", times=1, wait_s=1.0),
    Fault("status", times=1, code="502"),
    Fault("status", code="500"),
    Fault("limit", wait_s=1.0),
)
SHARE = 0.05
SEED = 16
DONE_S = 420.0
LEFT = "SELECT (SELECT count(*) FROM inbox) + (SELECT count(*) FROM outbox)"
FAILED = "SELECT text FROM messages WHERE direction = 'out' AND state IN ('failed', 'unknown')"


@dataclass(frozen=True)
class Storm:
    """So many replies to each of so many users."""

    users: int
    each: int

    @property
    def replies(self) -> int:
        """How many in all."""
        return self.users * self.each

    def texts(self) -> dict[str, list[str]]:
        """Return what each user is to read, in order."""
        return {f"user {user}": [f"{user}-{nr}" for nr in range(self.each)] for user in range(self.users)}


def ours(storm: Storm) -> Figures:
    """Let users write, and a worker answer each message with its text."""
    with stormy() as fakes, fresh(channels={CHANNEL: fakes.pointed(CHANNEL, SLACK)}) as stack:
        with stack.services() as services:
            for user, texts in storm.texts().items():
                services.intake.accept(CHANNEL, [_message(user, text) for text in texts])
        worker = stack.start("worker", WORKER)
        stack.wait_for(lambda: int(stack.value(LEFT)) == 0, "the last reply", DONE_S)
        told = [text for (text,) in stack.rows(FAILED)]
        worker.stop(STOP_S)
        return _judged(fakes, storm, told)


def theirs(storm: Storm, send: Callable[[str, Mapping[str, Sequence[str]]], Sequence[str]]) -> Figures:
    """Let a client send the same; `send` returns the texts of which it was told that they failed."""
    with stormy() as fakes:
        told = send(f"{fakes.address(CHANNEL)}/", storm.texts())
        return _judged(fakes, storm, told)


@contextmanager
def stormy() -> Iterator[FakeProviders]:
    """Run a fake with whose sends something goes wrong, now and then, the same for everybody."""
    with TemporaryDirectory() as folder, fake_providers({CHANNEL: SLACK}, Path(folder) / "received.jsonl") as fakes:
        fakes.play(*FAULTS, share=SHARE, seed=SEED, channel=CHANNEL)
        yield fakes


def _message(user: str, text: str) -> Delivery:
    persona = provider_of(SLACK).persona(user)
    return Delivery(
        senders=persona.senders,
        conversation=persona.conversation,
        route=persona.route,
        external_id=f"m-{text}",
        text=text,
    )


def _judged(fakes: FakeProviders, storm: Storm, told: Sequence[str]) -> Figures:
    seen: defaultdict[str, list[str]] = defaultdict(list)
    for message in fakes.received.visible(CHANNEL):
        seen[message.text.partition("-")[0]].append(message.text)
    firsts = {user: list(dict.fromkeys(texts)) for user, texts in seen.items()}
    places = [[int(text.partition("-")[2]) for text in texts] for texts in firsts.values()]
    shown = sum(map(len, firsts.values()))
    lost = {text for texts in storm.texts().values() for text in texts}.difference(*firsts.values())
    return {
        "replies": storm.replies,
        "doubles": sum(map(len, seen.values())) - shown,
        "losses": len(lost),
        "untold": len(lost.difference(told)),
        "told_failed": len(told),
        "out_of_order": sum(numbers != sorted(numbers) for numbers in places),
        "went_wrong": sum(bool(line["fault"]) for line in fakes.received.lines("received", what="send")),
    }


def per_10_000(figures: Figures, name: str) -> float:
    """Relate a count to 10,000 replies."""
    return float(10_000 * figures[name] / figures["replies"])
