"""Load the configured bots."""

from onelane.config import Settings
from onelane.errors import ConfigError
from onelane.importing import found
from onelane.turns.bots import Bot, Bots


def load_bots(settings: Settings) -> Bots:
    """Load the bot of each channel, and the one of HANDLER; a ConfigError names the setting."""
    default = load(settings.handler)
    by_channel = {
        name: load(channel.handler, f"CHANNELS.{name}.handler") if channel.handler else default
        for name, channel in settings.channels.items()
    }
    return Bots(default, by_channel)


def load(path: str, setting: str = "HANDLER") -> Bot:
    """Load the bot whose handler is `module:function`; events go to the module's own `on_event`. Raise ConfigError."""
    module, handle = found(path, setting)
    on_event = getattr(module, "on_event", None)
    if on_event is not None and not callable(on_event):
        raise ConfigError(f"{setting}: {module.__name__} has an on_event that is no function")
    return Bot(handle, on_event)
