"""A batch: entries, their changes, the lists of these. Each of their items stands or falls alone."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Any, Final, NoReturn

from onelane.channels import fields
from onelane.channels.bodies import json_object
from onelane.channels.meta import identities, messages, preferences, statuses
from onelane.channels.meta.change import Change
from onelane.deliveries import Ignored, Item, Quarantined
from onelane.errors import BadRequest
from onelane.model import JsonObject

OBJECT = "whatsapp_business_account"
ITEMS_MAX = 1_000
"""Meta puts no more into one batch."""

Reader = Callable[[Any, Change], Item]
Part = Callable[[], list[Item]]
"""What reads one part of a batch; it raises BadRequest for what it does not understand."""


def _error(_value: Any, _change: Change) -> Ignored:
    """Count an error that Meta reports beside messages: what it is about stands among these."""
    return Ignored("errors")


LISTS: Final[Mapping[str, Mapping[str, Reader]]] = {
    "messages": {"messages": messages.read, "statuses": statuses.read, "errors": _error},
    "smb_message_echoes": {"message_echoes": messages.echo},
    "user_id_update": {"user_id_update": identities.update},
    "user_preferences": {"user_preferences": preferences.read},
}
"""The lists in a change's value that are read, by the change's field."""

IGNORED: Final[Mapping[str, str]] = {
    "account_": "account",
    "business_": "account",
    "phone_number_": "account",
    "partner_": "account",
    "payment_configuration_": "account",
    "security": "account",
    "template_": "template",
    "message_template_": "template",
    "calls": "calls",
    "flows": "flows",
    "group_": "group",
    "history": "history",
    "smb_app_state_sync": "history",
    "tracking_events": "tracking",
    "automatic_events": "tracking",
}
"""Fields about other things than one conversation: how their names begin, and as what they are counted."""


def items_of(body: bytes, own_number: str | None) -> list[Item]:
    """Read a whole batch."""
    parts = list(islice(_parts(body, own_number), ITEMS_MAX + 1))
    if len(parts) > ITEMS_MAX:
        return [Quarantined(f"entry: must not hold more than {ITEMS_MAX} items")]
    return list(chain.from_iterable(map(fields.understood, parts))) or [Ignored("empty")]


def _parts(body: bytes, own_number: str | None) -> Iterator[Part]:
    """Take a batch apart; what has the wrong shape becomes a part that cannot be read."""
    try:
        batch = _batch(body)
    except BadRequest as problem:
        yield partial(_raise, problem)
        return
    for entry in _each(batch, "body", "entry"):
        for change in [entry] if callable(entry) else _each(entry, "entry", "changes"):
            yield from [change] if callable(change) else _of_change(change, own_number)


def _batch(body: bytes) -> JsonObject:
    batch = json_object(body)
    if batch.get("object") != OBJECT:
        raise BadRequest("object", f"must be {OBJECT}")
    return batch


def _of_change(change: Any, own_number: str | None) -> Iterator[Part]:
    name = change.get("field") if isinstance(change, dict) else None
    if not isinstance(name, str) or name not in LISTS:
        yield partial(_of_other_field, name)
        return
    lists, value = LISTS[name], change.get("value")
    if not isinstance(value, dict) or lists.keys().isdisjoint(value):
        yield partial(_raise, BadRequest("changes.value", f"must have {' or '.join(lists)}"))
        return
    around = Change(value, own_number)
    for key, read in lists.items():
        for one in _each(value, "changes.value", key) if key in value else ():
            yield one if callable(one) else partial(_read, read, one, around)


def _each(outer: Any, where: str, name: str) -> list[Any]:
    """Return the list of that name; in place of one that is none, a part that cannot be read."""
    inner = outer.get(name) if isinstance(outer, dict) else None
    if isinstance(inner, list):
        return inner
    return [partial(_raise, BadRequest(where, f"must have a list {name}"))]


def _read(read: Reader, value: Any, change: Change) -> list[Item]:
    return [read(value, change)]


def _of_other_field(name: Any) -> list[Item]:
    """Count what is about something else; a field that is not known may hold anything."""
    words = [word for beginning, word in IGNORED.items() if isinstance(name, str) and name.startswith(beginning)]
    if not words:
        raise BadRequest("changes.field", "is not known")
    return [Ignored(words[0])]


def _raise(problem: BadRequest) -> NoReturn:
    raise problem
