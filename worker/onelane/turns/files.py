"""The files that users sent, for the handlers of a process: fetched on one event loop of their own.

A turn that waits for a file needs no thread for it. In a suspect's child the parent fetches: a child has no providers.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from onelane import forks
from onelane.channels import Provider
from onelane.channels.fetching import fetched, open_client
from onelane.config import Settings
from onelane.errors import BadRequest, FileAway, FileError
from onelane.model import Attachment, File
from onelane.turns.event_loop import EventLoop

if TYPE_CHECKING:
    from httpx2 import AsyncClient

FETCHES_MAX: Final = 8
"""At once: each may hold FETCH_MAX_BYTES of memory. The others wait in their own time."""


class Fetches(Protocol):
    """What fetches users' files: from the providers, or what a test has sent."""

    def fetch(self, channel: str, attachment: Attachment) -> Future[File]:
        """Begin to fetch a file that came by `channel`; what goes wrong is a FileError of the future."""


class Files:
    """Fetches files from the channels' providers."""

    def __init__(self, settings: Settings, providers: Mapping[str, Provider]) -> None:
        self._providers = providers
        self._max_bytes = settings.fetch_max_bytes
        self._within_s = min(settings.fetch_timeout_s, settings.turn_timeout_s / 2)
        self._starting = Lock()
        """Guards the loop, which the first turn starts that fetches a file."""
        self._loop: EventLoop | None = None
        self._client: AsyncClient | None = None
        """Used on the loop alone."""
        self._places = asyncio.Semaphore(FETCHES_MAX)

    def fetch(self, channel: str, attachment: Attachment) -> Future[File]:
        """Begin to fetch a file that came by `channel`; what goes wrong is a FileError of the future."""
        if forks.is_child():
            raise FileError("a forked process fetches no files")
        with self._starting:
            self._loop = self._loop or EventLoop("files")
        return self._loop.run(self._fetch(channel, attachment))

    async def _fetch(self, channel: str, attachment: Attachment) -> File:
        try:
            async with asyncio.timeout(self._within_s), self._places:
                self._client = self._client or open_client()
                provider = self._providers.get(channel)
                if provider is None:
                    raise FileError("its channel is configured no more")
                return await fetched(self._client, provider.file(attachment), self._max_bytes)
        except TimeoutError:
            raise FileAway(f"its provider did not send it within {self._within_s:g} s") from None
        except BadRequest as problem:
            raise FileError(str(problem)) from None
