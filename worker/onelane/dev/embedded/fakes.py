"""The fakes of the providers' APIs, to which the demo channels of `onelane run` send; they call the web back."""

import json
import os
import secrets
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from onelane.dev.embedded.redis import free_port
from onelane.dev.embedded.server import EmbeddedServer
from onelane.model import JsonObject
from onelane.sources import without_channels
from onelane.testing.fake_providers import FakeProviders
from onelane.testing.fake_providers.running import ADDRESSES, COMMAND


class EmbeddedFakes(EmbeddedServer):
    """One process for all channels whose provider has a fake; it takes a free port and keeps it."""

    title = "fakes of the providers"
    variable = "CHANNELS"

    def __init__(self, data_dir: Path, channels: Mapping[str, JsonObject], web: str) -> None:
        """Take the channels with their tokens, and the address of the web that is called back."""
        super().__init__(data_dir)
        self.port = free_port()
        self._web = web
        self._token = secrets.token_urlsafe()
        self._unfaked = {name: one for name, one in channels.items() if one["provider"] not in ADDRESSES}
        self._faked = {name: one for name, one in channels.items() if name not in self._unfaked}

    @property
    def url(self) -> str:
        """Where the fakes are; each channel's is below its name."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def program(self) -> str:
        """Whose fakes they are, and where they keep what they received."""
        return f"fakes of {', '.join(self._faked)}; they keep what they received in {self.journal}"

    @property
    def journal(self) -> Path:
        """What was received and became visible in this run, as lines of JSON."""
        return self.data_dir / "received.jsonl"

    @cached_property
    def running(self) -> FakeProviders:
        """Speak to the process."""
        return FakeProviders(self.url, self._token, self.journal)

    @property
    def channels(self) -> dict[str, JsonObject]:
        """The channels, those that have a fake pointed to it."""
        pointed = {
            name: {**one, "public_url": self._web, **dict.fromkeys(ADDRESSES[one["provider"]], f"{self.url}/{name}")}
            for name, one in self._faked.items()
        }
        return {**self._unfaked, **pointed}

    def known_in(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of processes that send to them."""
        return {**environment, self.variable: json.dumps(self.channels)}

    def _launch(self) -> None:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        self.journal.unlink(missing_ok=True)
        arguments = ["--port", str(self.port), "--log", str(self.journal), "--callback", self._web]
        told = {"CHANNELS": json.dumps(self._faked), "FAKE_PROVIDERS_TOKEN": self._token}
        self._child.start([*COMMAND, *arguments], cwd=self.data_dir, env={**without_channels(os.environ), **told})

    def _is_ready(self) -> bool:
        try:
            self.running.tell("state")
        except (OSError, ValueError):
            return False
        return True
