"""Find the configured bots. What an import raises, or that it does not end, is said in one line."""

import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Timer, get_ident
from types import FrameType
from typing import Final

from onelane.config import Settings
from onelane.errors import EXIT_CONFIG, ConfigError, kind_of
from onelane.telemetry import libraries
from onelane.turns.bots import Bot, Bots

IMPORT_MAX_S: Final = 50.0
"""Less than a suspect's process has to start."""
NAMING: Final = (ImportError, NameError, AttributeError, KeyError, SyntaxError)
"""Errors whose texts name something that is missing or misspelt; other texts may hold a secret."""


def load_bots(settings: Settings) -> Bots:
    """Load the bot of each channel, and the one of HANDLER; a ConfigError names the setting."""
    default = load(settings.handler)
    by_channel = {
        name: load(channel.handler, f"CHANNELS.{name}.handler") if channel.handler else default
        for name, channel in settings.channels.items()
    }
    return Bots(default, by_channel)


def load(path: str, setting: str = "HANDLER") -> Bot:
    """Import `module:function` from the working folder, PYTHONPATH or the installed packages; raise ConfigError.

    Events go to the module's own function `on_event`.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module, _, name = path.partition(":")
    libraries.hear(module.partition(".")[0])
    try:
        with _ending_the_process(f"{setting}: importing {module} takes longer than {IMPORT_MAX_S:g} s"):
            found = import_module(module)
            handle, on_event = getattr(found, name, None), getattr(found, "on_event", None)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{setting}: cannot import {module}: {_told(error)}") from error
    if not callable(handle):
        raise ConfigError(f"{setting}: {module} has no function {name}")
    if on_event is not None and not callable(on_event):
        raise ConfigError(f"{setting}: {module} has an on_event that is no function")
    return Bot(handle, on_event)


def _told(error: BaseException) -> str:
    """Say what happened, and in which line of whose file."""
    said = f"{kind_of(error)}: {error}" if isinstance(error, NAMING) else kind_of(error)
    if isinstance(error, SyntaxError):
        return f"{kind_of(error)}: {error.msg}, in {error.filename}, line {error.lineno}"
    return f"{said}{_place(traceback.walk_tb(error.__traceback__))}"


def _place(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Name the innermost line of the bot: neither ours, nor a library's; nothing when there is none."""
    lines = [
        f", in {frame.f_code.co_filename}, line {line}"
        for frame, line in frames
        if not frame.f_code.co_filename.startswith(("<frozen", __file__, *libraries.PLACES))
    ]
    return lines[-1] if lines else ""


@contextmanager
def _ending_the_process(why: str) -> Iterator[None]:
    """End the process if the block does not: an import that hangs cannot be stopped otherwise."""
    importing = get_ident()

    def end() -> None:
        frame = sys._current_frames().get(importing)  # noqa: SLF001 - the documented way to another thread's stack
        place = _place(reversed(list(traceback.walk_stack(frame))))
        sys.stderr.write(f"onelane: {why}{place}\n")
        sys.stderr.flush()
        os._exit(EXIT_CONFIG)

    timer = Timer(IMPORT_MAX_S, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
