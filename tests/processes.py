"""Real processes for tests: started on the servers of the run, signalled by pid, and always ended."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from onelane.config import Channel, Settings
from onelane.dev.embedded.child import Child, children_of
from onelane.dev.embedded.redis import free_port
from onelane.dev.stack import WORKER, Stack
from tests.conftest import ROOT, eventually


def environment(settings: Settings, **extra: object) -> dict[str, str]:
    """Format `settings` as environment variables, with `extra` on top."""
    values = settings.model_dump(mode="json", exclude_defaults=True, exclude={"channels"})
    variables = {name.upper(): _text_of(value) for name, value in values.items()}
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CHANNELS": json.dumps({name: _with_secrets(channel) for name, channel in settings.channels.items()}),
        **variables,
        **{name.upper(): str(value) for name, value in extra.items()},
    }


def _text_of(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _with_secrets(channel: Channel) -> dict[str, object]:
    shown = channel.model_dump(mode="json", exclude_defaults=True)
    return {**shown, **channel.own}


@contextmanager
def worker_process(
    settings: Settings,
    *arguments: str,
    program: Sequence[str] = WORKER,
    handler: str = "tests.bots:handle",
    log: Path | None = None,
    is_supervised: bool = False,
    **extra: object,
) -> Iterator[Child]:
    """Run `onelane worker` as a process of its own; kill it, whatever happened, when the block ends.

    With `is_supervised`, the process is the worker's supervisor, which starts the next when one dies. `log` is a new
    file whose name ends in `.log`.
    """
    with TemporaryDirectory() as unread:
        log = log or Path(unread) / "worker.log"
        with Stack(log.parent, environment(settings, handler=handler, **extra), cwd=ROOT) as stack:
            alone = ["--unsupervised"] if program == WORKER and not is_supervised else []
            yield stack.start(log.stem, [*program, *alone, *arguments])


@contextmanager
def web_process(settings: Settings, folder: Path, **extra: object) -> Iterator[int]:
    """Serve the web as the Procfile does, with its log in `folder`; yields its port."""
    port = free_port()
    with Stack(folder, environment(settings, **extra), cwd=ROOT) as stack:
        stack.start_web(port)
        stack.await_web(port)
        yield port
        stack.stop()


def the_child(process: Child) -> int:
    """Wait for the supervised process and return its id."""
    return eventually(lambda: children_of(process.pid))[0]


def renewer_of(pid: int) -> int:
    """Wait for the helper process of a worker process and return its id."""

    def found() -> list[int]:
        return [child for child in children_of(pid) if b"onelane.lanes.renewer" in command_of(child)]

    return int(eventually(found)[0])


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
