"""A bot that waits, as one that calls another service does, and notes when it ran. Peers' jobs do the same."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onelane.bot import AsyncTurn, Turn

WAIT = "BENCH_WAIT_S"
NOTES = "BENCH_NOTES"
SYNC, ASYNC = "bench.handlers:handle", "bench.handlers:handle_async"


def handle(turn: Turn) -> str:
    """Wait, and echo."""
    return handled(str(turn.user.id), turn.message.seq, turn.message.text)


async def handle_async(turn: AsyncTurn) -> str:
    """Do the same without a thread."""
    wait_s, notes = float(os.environ.get(WAIT, "0")), os.environ.get(NOTES)
    _note(notes, "begin", str(turn.user.id), turn.message.seq)
    await asyncio.sleep(wait_s)
    _note(notes, "end", str(turn.user.id), turn.message.seq)
    return turn.message.text


def handled(user_id: str, seq: int, text: str) -> str:
    """Wait and note begin and end, as the environment configures it; return the text."""
    wait_s, notes = float(os.environ.get(WAIT, "0")), os.environ.get(NOTES)
    if wait_s or notes:
        _note(notes, "begin", user_id, seq)
        time.sleep(wait_s)
        _note(notes, "end", user_id, seq)
    return text


def environment(notes: Path | None, wait_s: float, handler: str = SYNC) -> dict[str, object]:
    """Return the environment of a process that runs this bot; without `notes` it notes nothing."""
    return {"HANDLER": handler, WAIT: wait_s, **({NOTES: notes} if notes else {})}


def read(notes: Path) -> list[Mapping[str, Any]]:
    """Read what was noted so far, in the order of time."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return sorted((json.loads(line) for line in lines), key=lambda note: note["at"])


def _note(notes: str | None, event: str, user_id: str, seq: int) -> None:
    if notes:
        line = json.dumps({"event": event, "user": user_id, "seq": seq, "at": time.monotonic()}) + "\n"
        descriptor = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, line.encode())  # one write of a short line to an appended file is whole
        os.close(descriptor)
