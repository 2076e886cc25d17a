"""What the embedded servers share: a folder, a process, a URL that stays the same over restarts."""

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import ClassVar, Self

from onelane.dev.embedded.child import Child, wait_until
from onelane.errors import EmbeddedServerError

START_S = 30.0
STOP_S = 10.0


class EmbeddedServer(ABC):
    """A server of ours with its data in `data_dir`. As a context manager it runs for the block's time."""

    title: ClassVar[str]
    variable: ClassVar[str]
    """The setting with which somebody uses a server of their own instead."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self._settings = settings or {}
        self._child = Child(self.data_dir.name, self.data_dir.parent, stop_signal=self.stop_signal)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it."""

    @property
    @abstractmethod
    def program(self) -> str:
        """Which server it is, of which version, and where it lies."""

    @property
    def pid(self) -> int:
        """The id of the server's first process."""
        return self._child.pid

    @property
    def last_lines(self) -> str:
        """The end of its log."""
        return self._child.last_lines()

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._child.is_running

    @property
    def has_died(self) -> bool:
        """Whether it has ended, and nobody here has stopped it."""
        return self._child.has_died

    def known_in(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of processes that use it."""
        return {**environment, self.variable: self.url}

    def start(self) -> str:
        """Start the server and wait until it answers; return its URL. Raise EmbeddedServerError."""
        if self.is_running:
            return self.url
        try:
            self.data_dir.parent.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign_folder()
            self._child.stop_leftover()
            self._launch()
        except OSError as error:
            raise self._problem(str(error)) from error
        self._await_ready()
        return self.url

    def stop(self) -> None:
        """Stop it in good order, within a bound; kill it otherwise."""
        self._child.stop(STOP_S)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        self._child.kill()

    def _await_ready(self) -> None:
        wait_until(lambda: not self.is_running or self._is_ready(), START_S)
        if not self.is_running or not self._is_ready():
            log = self.last_lines
            self.kill()
            raise self._problem(f"the end of {self._child.log} is\n{log}")

    @abstractmethod
    def _launch(self) -> None:
        """Prepare the data folder and start the child."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it answers."""

    def _refuse_foreign_folder(self) -> None:
        owner = self.data_dir.stat().st_uid if self.data_dir.exists() else os.geteuid()
        if os.geteuid() not in {0, owner}:
            raise self._problem("the folder belongs to another user: remove it as that user, or choose another")

    def _problem(self, reason: str) -> EmbeddedServerError:
        return EmbeddedServerError(
            f"the embedded {self.title} in {self.data_dir} did not start "
            f"(set {self.variable} to use a server of your own): {reason}"
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def version_of(program: Path, within_s: float) -> str:
    """Return what a program answers about its version. Raise OSError, subprocess.TimeoutExpired.

    The answer goes to a file: a pipe would be waited for while anybody, whom the program has started, holds it.
    """
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as answer:
        command = [str(program), "--version"]
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=answer, stderr=subprocess.DEVNULL, timeout=within_s, check=False
        )
        answer.seek(0)
        return answer.read()
