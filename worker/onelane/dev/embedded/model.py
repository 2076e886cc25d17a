"""The fake model, for `onelane run` with a bot that asks a model and without a key."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from onelane.dev.embedded.redis import free_port
from onelane.dev.embedded.server import EmbeddedServer
from onelane.testing.fake_model.running import COMMAND

HANDLER: Final = "onelane.handlers.llm:handle"
MADE_OF: Final = "onelane.handlers.llm"
CONNECT_S: Final = 1.0


def is_wanted(handlers: tuple[str, ...], environment: Mapping[str, str]) -> bool:
    """Whether a bot asks a model, and nobody says where a real one is, or has a key for it."""
    return any(map(_asks, handlers)) and not (environment.get("LLM_BASE_URL") or environment.get("LLM_API_KEY"))


def _asks(handler: str) -> bool:
    """Whether a bot is ours, or made of it as `onelane init --llm` writes it. Only the worker imports bots."""
    module = Path(*handler.partition(":")[0].split(".")).with_suffix(".py")
    try:
        return handler == HANDLER or MADE_OF in module.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


class EmbeddedModel(EmbeddedServer):
    """A process that speaks as a model's service does; it takes a free port and keeps it."""

    title = "fake model"
    variable = "LLM_BASE_URL"

    def __init__(self, data_dir: Path) -> None:
        """Keep in `data_dir` what it was asked."""
        super().__init__(data_dir)
        self.port = free_port()

    @property
    def url(self) -> str:
        """Where the model bot finds it."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def program(self) -> str:
        """Say what it is, and how to have a real one."""
        return "fake model, which repeats what it is told; for a real one: export LLM_API_KEY=… LLM_MODEL=…"

    def _launch(self) -> None:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        journal = self.data_dir / "asked.jsonl"
        journal.unlink(missing_ok=True)
        arguments = ["--port", str(self.port), "--log", str(journal)]
        self._child.start([*COMMAND, *arguments], cwd=self.data_dir, env=os.environ)

    def _is_ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), CONNECT_S).close()
        except OSError:
            return False
        return True
