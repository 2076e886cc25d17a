"""A handler that forks: the message's text says what its child does, and the reply how that child ended."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from onelane import Turn

LIVES_ON_AFTER_S = 20
"""A child that falls out of the handler ends at once; one that is still there then works as if it were a worker."""
NOTES = Path(os.environ.get("FORKER_NOTES", os.devnull))
GATE = NOTES.with_suffix(".gate")


def handle(turn: Turn) -> str | Awaitable[str]:
    """Do `act argument` in a forked child; after `async`, do it in a coroutine."""
    word, _, rest = turn.message.text.partition(" ")
    if word == "async":
        return _handle_async(rest)
    if word == "read":
        turn.history()
    if (pid := os.fork()) == 0:
        return turn.history()[0].text if word == "read" else CHILDREN[word](rest)
    if word == "live":
        return str(pid)
    while not (end := _end_of(pid)):
        time.sleep(0.01)
    return end


async def _handle_async(text: str) -> str:
    word, _, rest = text.partition(" ")
    await asyncio.sleep(0)
    if word == "bystand":
        while not GATE.exists():  # noqa: ASYNC110 - another process opens it
            await asyncio.sleep(0.01)
        _note("a bystander went on")
        return "bystander"
    if (pid := os.fork()) == 0:
        if word == "await":
            await asyncio.sleep(0)
            _note("the child went on")
            await asyncio.sleep(600)
        return CHILDREN[word](rest)
    while not (end := _end_of(pid)):  # noqa: ASYNC110 - it is a process
        await asyncio.sleep(0.01)
    GATE.touch()
    return end


STARTED = time.monotonic()


def _end_of(pid: int) -> str:
    """Return how a child ended; nothing while it may still end."""
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        return f"ended with {os.waitstatus_to_exitcode(status)}"
    return "lives on" if time.monotonic() > STARTED + LIVES_ON_AFTER_S else ""


def _raise(error: BaseException) -> str:
    raise error


def _live(argument: str) -> str:
    """Note which sockets this process has, and stay."""
    links = [_link(entry) for entry in Path("/proc/self/fd").iterdir()]
    _note(f"sockets: {sorted(link for link in links if link.startswith('socket:'))}")
    while True:
        time.sleep(60)


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:
        return ""  # the folder's own descriptor


CHILDREN: dict[str, Callable[[str], str]] = {
    "return": lambda argument: "a reply of the child",
    "raise": lambda argument: _raise(ValueError(argument)),
    "exit": lambda argument: sys.exit(int(argument)),
    "exit-well": lambda argument: sys.exit(),
    "exit-text": sys.exit,
    "interrupt": lambda argument: _raise(KeyboardInterrupt()),
    "live": _live,
}


def _note(line: str) -> None:
    with NOTES.open("a") as notes:
        notes.write(f"{os.getpid()} {line}\n")
