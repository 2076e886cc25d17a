"""The cases: a folder a provider, with the settings of a channel (`channel.json`), and files of one case or several.

docs/CONFORMANCE.md describes the format.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from onelane.channels import Inbound
from onelane.model import JsonObject

FOLDER: Final = Path(__file__).parent / "cases"
SETTINGS: Final = "channel.json"
PROVIDERS: Final = tuple(sorted(path.parent.name for path in FOLDER.glob(f"*/{SETTINGS}")))
URL: Final = "https://bot.example/webhooks/support"
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"


@dataclass(frozen=True)
class Case:
    """A webhook, and what must become of it."""

    provider: str
    name: str
    request: JsonObject
    expected: JsonObject

    @property
    def is_get(self) -> bool:
        """Whether it is a handshake, which nobody signs."""
        return bool(self.request.get("method") == "GET")

    def unsigned(self, url: str = URL) -> Inbound:
        """Make the request without the provider's signature."""
        query = urlencode(self.request.get("query", {}))
        headers = {name.lower(): value for name, value in self.request.get("headers", {}).items()}
        content_type = self.request.get("content_type", FORM if "form" in self.request else JSON)
        return Inbound(url + f"?{query}" * bool(query), headers, content_type, self._body())

    def _body(self) -> bytes:
        if "form" in self.request:
            return urlencode(pairs_of(self.request["form"]), errors="surrogateescape").encode()
        if "text" in self.request:
            return str(self.request["text"]).encode(errors="surrogateescape")
        return json.dumps(self.request["body"]).encode() if "body" in self.request else b""


def settings_of(provider: str) -> JsonObject:
    """Return the settings of the channel to which a provider's cases are sent; its first secret signs them."""
    settings: JsonObject = json.loads((FOLDER / provider / SETTINGS).read_text("utf-8"))
    return settings


def cases() -> list[Case]:
    """Read all cases of all providers."""
    return [
        Case(path.parent.name, f"{path.parent.name}/{path.stem}{number or ''}", one["request"], one["expected"])
        for path in sorted(FOLDER.glob("*/*.json"))
        if path.name != SETTINGS
        for number, one in enumerate(_listed(json.loads(path.read_text("utf-8"))))
    ]


def pairs_of(form: Mapping[str, Any] | list[list[str]]) -> list[tuple[str, str]]:
    """Return the fields of a form as texts; a value that is none stands for its JSON."""
    pairs = form.items() if isinstance(form, Mapping) else form
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in pairs]


def _listed(content: Any) -> list[JsonObject]:
    return content if isinstance(content, list) else [content]
