"""Handlers whose turns wait for a file that the text names: thousands of them look for it together.

WAITERS names a folder. In it each gate's count says how many turns wait for it now, and for how long the first has.
"""

import asyncio
import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from onelane import AsyncTurn, Turn

FOLDER = Path(os.environ.get("WAITERS", "."))
LOOK_EVERY_S = 0.05


class Gate:
    """A file that opens it, and who waits."""

    def __init__(self, name: str) -> None:
        self.waiting = 0
        self.opened: Future[None] = Future()
        self._name = name
        self._began = time.monotonic()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not (FOLDER / self._name).exists():
            count = FOLDER / f"{self._name}.new"
            count.write_text(f"{self.waiting} {time.monotonic() - self._began:.1f}")
            count.rename(FOLDER / f"{self._name}.count")
            time.sleep(LOOK_EVERY_S)
        self.opened.set_result(None)


gates: dict[str, Gate] = {}
changing = threading.Lock()


def gate_of(name: str) -> Gate:
    with changing:
        gate = gates[name] = gates.get(name) or Gate(name)
        gate.waiting += 1
        return gate


def handle(turn: Turn) -> str:
    """Wait in a thread."""
    gate_of(turn.message.text).opened.result()
    return "sync"


async def handle_async(turn: AsyncTurn) -> str:
    """Wait on the loop."""
    await asyncio.shield(asyncio.wrap_future(gate_of(turn.message.text).opened))  # of one future for all
    return "async"
