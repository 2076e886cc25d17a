"""Find what a setting names as `module:function`. That its import raises or does not end is said in one line."""

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import isfunction
from pathlib import Path
from threading import Timer, get_ident
from types import FrameType, ModuleType
from typing import Any, Final

from onelane.errors import EXIT_CONFIG, ConfigError, kind_of, shown_texts
from onelane.telemetry import libraries

IMPORT_MAX_S: Final = 50.0
"""Less than a suspect's process has to start."""
NAMING: Final = (ImportError, NameError, AttributeError, KeyError, SyntaxError)
"""Errors whose texts name something that is missing or misspelt; other texts may hold a secret."""

NOT_THE_BOTS: Final = ("<frozen", __file__, *libraries.PLACES)
"""How the names of files begin that are ours, a library's or Python's."""


def found(path: str, setting: str) -> tuple[ModuleType, Callable[..., Any]]:
    """Import `module:function` from the working folder, PYTHONPATH or the installed packages; raise ConfigError.

    Return the module as well.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name, _, function_name = path.partition(":")
    libraries.hear(name.partition(".")[0])
    try:
        with _ending_the_process(f"{setting}: importing {name} takes longer than {IMPORT_MAX_S:g} s"):
            module = import_module(name)
            function = getattr(module, function_name, None)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{setting}: cannot import {name}: {_told(error)}{_hint(error, name)}") from error
    if not callable(function):
        raise ConfigError(f"{setting}: {name} has no function {function_name}{_functions_of(module)}")
    return module, function


def _told(error: BaseException) -> str:
    """Say what happened, and in which line of whose file."""
    said = f"{kind_of(error)}: {error}" if isinstance(error, NAMING) else kind_of(error)
    if isinstance(error, SyntaxError):
        return f"{kind_of(error)}: {error.msg}, in {error.filename}, line {error.lineno}"
    return f"{said}{_place(traceback.walk_tb(error.__traceback__))}"


def _hint(error: BaseException, name: str) -> str:
    """Say what is missing where it is the module itself; in development, show the lines that led to the error."""
    if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
        return f"; is {error.name}.py in this folder?"
    if not shown_texts.is_set():
        return ""
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if not frame.filename.startswith(NOT_THE_BOTS)]
    )
    return "\n" + "".join(shown.format(chain=False)).rstrip()


def _functions_of(module: ModuleType) -> str:
    """Name the functions that a module has of its own."""
    own = [
        name
        for name, one in vars(module).items()
        if isfunction(one) and one.__module__ == module.__name__ and not name.startswith("_")
    ]
    return f"; it has {', '.join(own)}" if own else ""


def _place(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Name the innermost line of the bot: neither ours, nor a library's; nothing when there is none."""
    lines = [
        f", in {frame.f_code.co_filename}, line {line}"
        for frame, line in frames
        if not frame.f_code.co_filename.startswith(NOT_THE_BOTS)
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
