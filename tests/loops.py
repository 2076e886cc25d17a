"""Coroutines in tests: the browser's tests keep a loop of their own running in the main thread."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def run(coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine on a loop of a thread of its own, in a copy of the caller's context."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(copy_context().run, asyncio.run, coroutine).result()
