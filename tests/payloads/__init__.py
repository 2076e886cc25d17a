"""Webhooks of each provider, with what must become of them.

`<provider>/__init__.py` has the SETTINGS of a channel and `signed`, which signs a request as the provider does, with
the provider's own library where there is one. Beside it lie the cases, a file a case, or a list of similar ones:

    {"about":    one sentence,
     "request":  {"body": JSON, or "form": {…} or [[name, value], …], a value text or JSON, or "text": the body itself,
                  "content_type"?, "headers"?: {…}, "query"?: {…}, "method"?: "GET"},
     "expected": {"items"?: [{"type": "delivery", "identity", "status", "ignored" or "quarantined", …}, …],
                  "answer"?: {"status", "content_type", "body"},
                  "refused"?: the HTTP status, in place of both}}

An item has the fields that differ from their defaults, and no other. `"raw": true` stands for an object of the request.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from onelane.channels import PROVIDERS, Inbound, Provider, provider_of
from onelane.config import Channel
from onelane.deliveries import Delivery, IdentityChange, Ignored, Item, Quarantined, Status
from onelane.model import JsonObject

FOLDER = Path(__file__).parent
URL = "https://bot.example/webhooks/support"
ON_THE_NET = sorted(PROVIDERS.keys() - {"demo"})
"""Providers whose webhooks come from somebody else."""
FORM = "application/x-www-form-urlencoded"
TYPES: Mapping[type[Item], str] = {
    Delivery: "delivery",
    IdentityChange: "identity",
    Status: "status",
    Ignored: "ignored",
    Quarantined: "quarantined",
}


@dataclass(frozen=True)
class Case:
    """A webhook, and what must become of it."""

    provider: str
    name: str
    request: JsonObject
    expected: JsonObject

    @property
    def is_get(self) -> bool:
        return bool(self.request.get("method") == "GET")

    def unsigned(self) -> Inbound:
        """Make the request without the provider's signature."""
        query = urlencode(self.request.get("query", {}))
        headers = {name.lower(): value for name, value in self.request.get("headers", {}).items()}
        content_type = self.request.get("content_type", FORM if "form" in self.request else "application/json")
        return Inbound(URL + f"?{query}" * bool(query), headers, content_type, self._body())

    def _body(self) -> bytes:
        if "form" in self.request:
            return urlencode(_pairs(self.request["form"]), errors="surrogateescape").encode()
        if "text" in self.request:
            return str(self.request["text"]).encode(errors="surrogateescape")
        return json.dumps(self.request["body"]).encode() if "body" in self.request else b""

    def objects(self) -> Iterator[JsonObject]:
        """Walk through all that an adapter may keep as raw: the form, and each JSON object of the request."""
        if "form" in self.request:
            form = dict(_pairs(self.request["form"]))
            yield form
            for value in form.values():
                yield from _objects(_json(value))
        yield from _objects(self.request.get("body"))


def cases() -> list[Case]:
    """Read all cases of all providers."""
    return [
        Case(path.parent.name, f"{path.parent.name}/{path.stem}{number or ''}", one["request"], one["expected"])
        for path in sorted(FOLDER.glob("*/*.json"))
        for number, one in enumerate(_listed(json.loads(path.read_text())))
    ]


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


def _listed(content: Any) -> list[JsonObject]:
    return content if isinstance(content, list) else [content]


def _pairs(form: Mapping[str, Any] | list[list[str]]) -> list[tuple[str, str]]:
    pairs = form.items() if isinstance(form, Mapping) else form
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in pairs]


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
