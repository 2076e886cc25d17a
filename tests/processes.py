"""Real worker processes for tests: started, signalled by pid, and always ended."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onelane.config import Channel, Settings
from tests.conftest import DEADLINE_S, ROOT, eventually


def environment(settings: Settings, **extra: object) -> dict[str, str]:
    """Word `settings` as environment variables, with `extra` on top."""
    values = settings.model_dump(mode="json", exclude_defaults=True, exclude={"channels"})
    words = {name.upper(): str(value) for name, value in values.items()}
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CHANNELS": json.dumps({name: _with_secrets(channel) for name, channel in settings.channels.items()}),
        **words,
        **{name.upper(): str(value) for name, value in extra.items()},
    }


def _with_secrets(channel: Channel) -> dict[str, object]:
    shown = channel.model_dump(mode="json", exclude_defaults=True)
    return {**shown, **channel.own}


@contextmanager
def worker_process(
    settings: Settings,
    *arguments: str,
    program: Sequence[str] = ("-m", "onelane", "worker"),
    handler: str = "tests.bots:handle",
    log: Path | None = None,
    **extra: object,
) -> Iterator[subprocess.Popen]:
    """Run `onelane worker` as a process of its own; end it, whatever happened, when the block ends."""
    with log.open("ab") if log else Path(os.devnull).open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            env=environment(settings, handler=handler, **extra),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen) -> None:
    """End a process and everything it started."""
    children = descendants(process.pid)
    if process.poll() is None:
        process.kill()
        process.wait(DEADLINE_S)
    for pid in children:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue


def descendants(pid: int) -> list[int]:
    """List the ids of all processes below `pid`."""
    found = []
    for child in children_of(pid):
        found += [child, *descendants(child)]
    return found


def children_of(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def the_child(process: subprocess.Popen) -> int:
    """Wait for the supervised process and return its id."""
    return eventually(lambda: children_of(process.pid))[0]
