"""The channels that `onelane run` has by itself, and what the environment changes of them."""

from collections.abc import Mapping, MutableMapping

from onelane.model import JsonObject
from onelane.sources import ONE, channels_in


def demo_channels(ours: Mapping[str, JsonObject], environment: MutableMapping[str, str]) -> dict[str, JsonObject]:
    """Return `ours` with the settings that CHANNEL_<NAME> gives one of them, taking those out of the environment.

    A channel of one's own, which names its provider, takes the place of ours. Raise ConfigError for what is no JSON.
    """
    channels = dict(ours)
    for name, given in channels_in(environment).items():
        ours_of_name = channels.pop(name, None)
        if ours_of_name and given.source.startswith(ONE) and "provider" not in given.value:
            del environment[given.source]
            channels[name] = {**ours_of_name, **given.value}
    return channels
