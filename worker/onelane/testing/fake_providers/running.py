"""Start the fakes as a process of their own, and tell them what goes wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from onelane.config import Channel
from onelane.model import JsonObject
from onelane.sources import without_channels
from onelane.testing.fake_providers.control import CONTROL
from onelane.testing.fake_providers.faults import Fault
from onelane.testing.fake_providers.received import Received

COMMAND: Final = (sys.executable, "-P", "-m", "onelane.testing.fake_providers")
ADDRESSES: Final[Mapping[str, Sequence[str]]] = {
    "meta": ["base_url"],
    "slack": ["base_url"],
    "standard": ["reply_url"],
    "telegram": ["base_url"],
    "twilio": ["base_url", "messaging_url"],
}
"""The settings of each provider that say where it is."""
ANSWER_S: Final = 10.0
STOP_S: Final = 10.0


class FakeProviders:
    """Running fakes."""

    def __init__(self, base_url: str, token: str, journal: Path) -> None:
        """Speak to the fakes at `base_url`."""
        self.base_url = base_url
        self.received = Received(journal)
        self._token = token

    def address(self, channel: str) -> str:
        """Return where a channel's API is."""
        return f"{self.base_url}/{channel}"

    def pointed(self, name: str, channel: Channel) -> Channel:
        """Return a channel that sends to its fake."""
        names = ADDRESSES[channel.provider]
        return Channel(**{**_given(channel), **dict.fromkeys(names, self.address(name))})

    def plan(
        self, *faults: str | Fault, count: int = 1, channel: str | None = None, what: str = "send", text: str = ""
    ) -> None:
        """Let each of these happen to the next `count` requests that hold `text`, in this order."""
        self.tell("faults", faults=_as_json(faults), count=count, channel=channel, what=what, text=text)

    def play(
        self, *faults: str | Fault, share: float, seed: int = 0, channel: str | None = None, what: str = "send"
    ) -> None:
        """Let a share of the requests meet one of these at random from now on."""
        self.tell("random", faults=_as_json(faults), share=share, seed=seed, channel=channel, what=what)

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self.tell("clear")

    def call_back(self, **policy: Any) -> None:
        """Set how and where they call back: the fields of a Policy, `channel`, `url`."""
        self.tell("callbacks", **policy)

    def tell(self, command: str, **given: Any) -> JsonObject:
        """Send a command, and return the state; raise ValueError for what is refused."""
        request = Request(  # noqa: S310 - it is our own process
            f"{self.base_url}/{CONTROL}/{command}",
            json.dumps(given).encode(),
            {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=ANSWER_S) as answer:
                state: JsonObject = json.load(answer)
        except HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None
        return state


@contextmanager
def fake_providers(
    channels: Mapping[str, Channel], log: Path, *, callback: str | None = None, port: int = 0
) -> Iterator[FakeProviders]:
    """Run fakes of these channels, which must have their tokens, until the block ends; `log` is their journal."""
    arguments = ["--port", str(port), "--log", str(log), *(["--callback", callback] if callback else [])]
    given = json.dumps({name: _given(one) for name, one in channels.items()})
    environment = {**without_channels(os.environ), "CHANNELS": given}
    with subprocess.Popen([*COMMAND, *arguments], env=environment, stdout=subprocess.PIPE) as process:
        try:
            ready = json.loads(process.stdout.readline() if process.stdout else b"")
            yield FakeProviders(ready["address"], ready["token"], log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            finally:
                process.kill()


def _given(channel: Channel) -> JsonObject:
    """Write a channel down, with its secrets."""
    return {**channel.model_dump(mode="json", exclude_defaults=True), **channel.own}


def _as_json(faults: tuple[str | Fault, ...]) -> list[str | JsonObject]:
    return [fault if isinstance(fault, str) else asdict(fault) for fault in faults]
