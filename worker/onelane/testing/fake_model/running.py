"""Start the fake model as a process of its own, and tell it what goes wrong."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final
from urllib.request import ProxyHandler, Request, build_opener

from onelane.model import JsonObject
from onelane.testing.fake_model.serving import CONTROL, Fault

COMMAND: Final = (sys.executable, "-P", "-m", "onelane.testing.fake_model")
ANSWER_S: Final = 10.0
STOP_S: Final = 10.0


class FakeModel:
    """A running fake model."""

    def __init__(self, base_url: str, token: str, journal: Path) -> None:
        """Speak to the one at `base_url`."""
        self.base_url = base_url
        """What LLM_BASE_URL is to be."""
        self._token = token
        self._journal = journal

    def plan(self, *faults: Fault) -> None:
        """Let each of these happen to one of the next requests, in this order."""
        request = Request(  # noqa: S310 - it is our own process
            f"{self.base_url.removesuffix('/v1')}/{CONTROL}/faults",
            json.dumps({"faults": [asdict(fault) for fault in faults]}).encode(),
            {"Authorization": f"Bearer {self._token}"},
        )
        with build_opener(ProxyHandler({})).open(request, timeout=ANSWER_S) as answer:
            answer.read()

    def asked(self) -> list[JsonObject]:
        """Return what it was asked so far, in order: `key`, `messages`, `status`."""
        return [line for line in self._lines() if line["event"] == "asked"]

    def refused(self) -> list[JsonObject]:
        """Return what it refused, and why."""
        return [line for line in self._lines() if line["event"] == "refused"]

    def _lines(self) -> list[JsonObject]:
        return [json.loads(line) for line in self._journal.read_text().splitlines()]


@contextmanager
def fake_model(log: Path, *, port: int = 0, delay_s: float = 0.0) -> Iterator[FakeModel]:
    """Run a fake model until the block ends; `log` is its journal."""
    arguments = ["--port", str(port), "--log", str(log), "--delay", str(delay_s)]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE) as process:
        try:
            ready = json.loads(process.stdout.readline() if process.stdout else b"")
            yield FakeModel(ready["address"], ready["token"], log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            finally:
                process.kill()
