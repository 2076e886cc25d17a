"""Load the configured bots, and refuse functions that could not be called."""

import inspect
from types import ModuleType
from typing import Any, Final

from onelane.config import Settings
from onelane.errors import ConfigError
from onelane.importing import found
from onelane.turns.bots import Act, Bot, Bots, Function

HOOKS: Final = {"on_event": ("turn", "event"), "on_start": ("turn",), "on_failed": ("turn", "failure")}
"""What a bot's module may have beside its handler, and what each of them gets."""


def load_bots(settings: Settings) -> Bots:
    """Load the bot of each channel, and the one of HANDLER; a ConfigError names the setting."""
    default = load(settings.handler)
    by_channel = {
        name: load(channel.handler, f"{channel.place(name)}.handler") if channel.handler else default
        for name, channel in settings.channels.items()
    }
    return Bots(default, by_channel)


def load(path: str, setting: str = "HANDLER") -> Bot:
    """Load the bot whose handler is `module:function`, with the module's own HOOKS. Raise ConfigError."""
    module, handle = found(path, setting)
    name = path.partition(":")[2]
    _check_signature(handle, name, ("turn",), f"{setting}: {module.__name__}")
    hooks = {hook: _hook(module, hook, f"{setting}: {module.__name__}") for hook in HOOKS}
    if (start := hooks["on_start"]) is not None:
        _check_kind(start, {name: handle, "on_event": hooks["on_event"]}, f"{setting}: {module.__name__}")
    return Bot(handle, **hooks)


def _hook(module: ModuleType, name: str, where: str) -> Function | None:
    hook: Any = getattr(module, name, None)
    if hook is None:
        return None
    if not callable(hook):
        raise ConfigError(f"{where} has an {name} that is no function")
    _check_signature(hook, name, HOOKS[name], where)
    return hook  # type: ignore[no-any-return]  # it is callable, whatever it is


def _check_signature(function: Function, name: str, gets: tuple[str, ...], where: str) -> None:
    try:
        inspect.signature(function).bind(*gets)
    except TypeError:
        shown = f"{name}({', '.join(gets)})"
        raise ConfigError(f"{where} has a function {name} that cannot be called as {shown}") from None
    except ValueError:
        return  # one that is written in C may not say what it takes


def _check_kind(start: Function, others: dict[str, Function | None], where: str) -> None:
    """Refuse an on_start that cannot run in the turns of the functions that it goes before."""
    is_async = Act(start).is_async
    for name, function in others.items():
        if function is not None and Act(function).is_async is not is_async:
            one, other = ("on_start", name) if is_async else (name, "on_start")
            raise ConfigError(f"{where}: {one} is async and {other} is not: make both async, or none")
