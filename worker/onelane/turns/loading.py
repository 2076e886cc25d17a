"""Find the configured handler."""

import sys
from importlib import import_module
from pathlib import Path

from onelane.bot import Handler
from onelane.errors import ConfigError
from onelane.telemetry import libraries


def load(path: str) -> Handler:
    """Import `module:function` from the working folder, PYTHONPATH or the installed packages."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module, _, name = path.partition(":")
    libraries.hear(module.partition(".")[0])
    try:
        handler: Handler | None = getattr(import_module(module), name, None)
    except ImportError as error:
        raise ConfigError(f"HANDLER: cannot import {module}: {error}") from error
    if not callable(handler):
        raise ConfigError(f"HANDLER: {module} has no function {name}")
    return handler
