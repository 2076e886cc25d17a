"""Where channels are configured: CHANNELS, the file that CHANNELS_FILE names, a variable CHANNEL_<NAME> for each."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from onelane.errors import ConfigError
from onelane.formats import CHANNEL_NAME, CHANNEL_NAMES
from onelane.model import JsonObject

ALL: Final = "CHANNELS"
FILE: Final = "CHANNELS_FILE"
ONE: Final = "CHANNEL_"


class Given(NamedTuple):
    """A channel as its operator wrote it, unchecked."""

    source: str
    """The variable."""
    place: str
    """The variable and, where it has several channels, the channel's name: errors begin with it."""
    value: Any


def channels_in(environment: Mapping[str, str]) -> dict[str, Given]:
    """Return all channels by name; a ConfigError names the variable, and both if a channel is in two."""
    found: dict[str, Given] = {}
    for source, channels in _each(environment):
        for name, value in channels.items():
            if not CHANNEL_NAME.fullmatch(name):
                raise ConfigError(f"{source}: {CHANNEL_NAMES}")
            if name in found:
                raise ConfigError(f"{source}: the channel {name} is in {found[name].source} too: leave it out of one")
            found[name] = Given(source, source if source.startswith(ONE) else f"{source}.{name}", value)
    return found


def without_channels(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without all that configures a channel."""
    return {name: value for name, value in environment.items() if name not in {ALL, FILE} and not name.startswith(ONE)}


def _each(environment: Mapping[str, str]) -> Iterator[tuple[str, JsonObject]]:
    if text := environment.get(ALL):
        yield ALL, _object(ALL, text)
    if path := environment.get(FILE):
        yield FILE, _object(FILE, _read(path))
    for variable in sorted(environment):
        if variable.startswith(ONE) and (text := environment[variable]):
            yield variable, {variable.removeprefix(ONE).lower(): _object(variable, text)}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ConfigError(f"{FILE}: must be the path of a file that can be read") from None


def _object(source: str, text: str) -> JsonObject:
    try:
        value = json.loads(text, object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError):
        raise ConfigError(f"{source}: must be valid JSON, each name given once, see .env.example") from None
    if isinstance(value, dict):
        return value
    raise ConfigError(f"{source}: must be a JSON object")


def _unambiguous(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found
