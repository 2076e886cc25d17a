"""What our adapters make of the cases of `onelane.testing.conformance`, signed by the providers' own libraries.

Beside this, a module a provider: the SETTINGS of its channel, and `signed`, which signs a request as the provider does,
with the provider's own library where there is one.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any

from onelane.channels import PROVIDERS, Inbound, Provider, provider_of
from onelane.config import Channel
from onelane.deliveries import Delivery, IdentityChange, Ignored, Item, Quarantined, Status
from onelane.model import JsonObject
from onelane.testing.conformance.case import Case, pairs_of

ON_THE_NET = sorted(PROVIDERS.keys() - {"demo"})
"""Providers whose webhooks come from somebody else."""
TYPES: Mapping[type[Item], str] = {
    Delivery: "delivery",
    IdentityChange: "identity",
    Status: "status",
    Ignored: "ignored",
    Quarantined: "quarantined",
}


def channel_of(provider: str) -> tuple[Provider, Callable[[Inbound], Inbound]]:
    """Make the test channel of a provider: its adapter, and what signs for it."""
    module = import_module(f"tests.payloads.{provider}")
    return provider_of(Channel(provider=provider, **module.SETTINGS)), module.signed


def shown(item: Item, objects: Sequence[JsonObject]) -> JsonObject:
    """Return an item as the files write it."""
    if isinstance(item, Ignored | Quarantined):
        return {"type": TYPES[type(item)], **asdict(item)}
    content = item.model_dump(mode="json", exclude_defaults=True)
    if content.get("raw") in objects:
        content["raw"] = True
    return {"type": TYPES[type(item)], **content}


def objects_of(case: Case) -> Iterator[JsonObject]:
    """Walk through all that an adapter may keep as raw: the form, and each JSON object of the request."""
    if "form" in case.request:
        form = dict(pairs_of(case.request["form"]))
        yield form
        for value in form.values():
            yield from _objects(_json(value))
    yield from _objects(case.request.get("body"))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _objects(value: Any) -> Iterator[JsonObject]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(inner)
