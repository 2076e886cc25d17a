"""A channel's `normalize_sender`: how an identifier is spelled, where a provider has two spellings of one number."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from onelane.channels.fields import Sender
from onelane.config import Channel
from onelane.deliveries import Delivery, IdentityChange, Item, Quarantined
from onelane.importing import found
from onelane.model import JsonObject

IDENTIFIER: Final = TypeAdapter[str](Sender)


class Normalizer:
    """Spells every identifier of what arrives as the channel's function does."""

    def __init__(self, spell: Callable[[str], Any]) -> None:
        """Take a pure function of one identifier."""
        self._spell = spell

    def __call__(self, item: Item) -> Item:
        """Return the item with its identifiers spelled so; it goes into quarantine where that is impossible."""
        try:
            match item:
                case Delivery():
                    spelled: JsonObject = {"senders": self._all(item.senders)}
                    if item.conversation is not None:
                        spelled["conversation"] = self._one(item.conversation)
                case IdentityChange():
                    spelled = {name: self._all(getattr(item, name)) for name in ("senders", "adds", "drops")}
                case _:
                    return item
        except ValidationError:
            return Quarantined("normalize_sender returned what is no identifier")
        except Exception as error:  # noqa: BLE001 - a function of somebody else's may raise anything
            return Quarantined(f"normalize_sender raised {type(error).__name__}")
        return item.model_copy(update=spelled)

    def _all(self, identifiers: tuple[str, ...]) -> tuple[str, ...]:
        """Spell them in their order, each once: two may be one now."""
        return tuple(dict.fromkeys(map(self._one, identifiers)))

    def _one(self, identifier: str) -> str:
        return IDENTIFIER.validate_python(self._spell(identifier), strict=True)


def normalizers(channels: Mapping[str, Channel]) -> dict[str, Normalizer]:
    """Load each channel's `normalize_sender`; those without one are left out. A ConfigError names the channel."""
    return {
        name: Normalizer(found(channel.normalize_sender, f"{channel.place(name)}.normalize_sender")[1])
        for name, channel in channels.items()
        if channel.normalize_sender
    }
