"""What somebody chose or typed in one of Slack's elements: a button, a menu, a date, a field of a form."""

from collections.abc import Mapping
from typing import Any, Final

from onelane.channels.slack.places import plain
from onelane.model import JsonObject

Chosen = str | list[str] | None
"""Several where the element takes several; None where nothing is chosen."""

ONE: Final = ("value", "selected_date", "selected_time", "selected_user", "selected_conversation", "selected_channel")
MANY: Final = ("selected_users", "selected_conversations", "selected_channels")


def chosen(element: Mapping[str, Any]) -> Chosen:
    """Return the values of one element, whatever its type; what is not text is not a value."""
    for name in ONE:
        if isinstance(value := element.get(name), str):
            return value
    if isinstance(moment := element.get("selected_date_time"), int):
        return str(moment)
    if isinstance(option := element.get("selected_option"), dict):
        return _text(option.get("value"))
    for name in MANY:
        if isinstance(values := element.get(name), list):
            return [value for value in values if isinstance(value, str)]
    if "selected_options" in element or "files" in element:
        options = _objects(element.get("selected_options")) + _objects(element.get("files"))
        return [str(option.get("value", option.get("id", ""))) for option in options]
    return None


def label(element: Mapping[str, Any]) -> str:
    """Return what somebody read where he pressed, or what he chose or typed."""
    options = [element.get("selected_option"), *_objects(element.get("selected_options"))]
    texts = [_text(one.get("text")) for one in [element, *_objects(options)]]
    if shown := [text for text in texts if text]:
        return ", ".join(shown)
    values = chosen(element)
    return values if isinstance(values, str) else ", ".join(values or ())


def filled(state: Any) -> JsonObject:
    """Return a form's values, by block and by element."""
    blocks = state.get("values") if isinstance(state, dict) else None
    return {
        block: {name: chosen(element) for name, element in elements.items() if isinstance(element, dict)}
        for block, elements in (blocks.items() if isinstance(blocks, dict) else ())
        if isinstance(elements, dict)
    }


def _text(text: Any) -> str | None:
    """Return a text, or the text of one of Slack's objects for texts."""
    if isinstance(text, dict):
        text = text.get("text")
    return plain(text) if isinstance(text, str) else None


def _objects(values: Any) -> list[JsonObject]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
