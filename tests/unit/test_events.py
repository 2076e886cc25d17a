"""Log events: what the code logs is what `telemetry/events.py` lists, by name, by field and by level."""

import ast
from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from onelane.telemetry.events import EVENTS
from onelane.telemetry.log import event
from tests.conftest import ROOT

Lines = list[MutableMapping[str, Any]]

CODE = [*ROOT.glob("worker/**/*.py"), *ROOT.glob("app/**/*.py")]


class Logged(NamedTuple):
    """One place that logs an event."""

    where: str
    name: str
    fields: frozenset[str]
    """Those that are written there."""
    has_more: bool
    """Whether it also passes `**names`, which may be any of the event's fields."""


def logged_in(code: str, path: str) -> Iterator[Logged]:
    """Find every `event(…)` of a module, and every call of a function that only passes its name and fields on."""
    if "event(" not in code:
        return
    tree = ast.parse(code)
    passing_on = dict(_passing_on(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=called)) if called in {"event", *passing_on}:
                if node not in passing_on.values():
                    yield from _logged_by(node, f"{path}:{node.lineno}")


def _logged_by(call: ast.Call, where: str) -> Iterator[Logged]:
    names = _names(call.args[0])
    assert names, f"{where}: an event's name must be written where it is logged"
    fields = frozenset(keyword.arg for keyword in call.keywords if keyword.arg)
    for name in names:
        yield Logged(where, name, fields, len(fields) < len(call.keywords))


def _passing_on(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Find functions that call `event` with their own first argument: their name, and that call."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.args.args:
            for node in ast.walk(function):
                match node:
                    case ast.Call(func=ast.Name(id="event"), args=[ast.Name(id=name)]):
                        if name == function.args.args[0].arg:
                            yield function.name, node


def _names(argument: ast.expr) -> list[str]:
    """Read a name, or both names of `a if … else b`."""
    match argument:
        case ast.Constant(value=str(name)):
            return [name]
        case ast.IfExp(body=body, orelse=orelse):
            return _names(body) + _names(orelse)
        case _:
            return []


LOGGED = [logged for path in CODE for logged in logged_in(path.read_text(), str(path.relative_to(ROOT)))]


def test_every_event_of_the_code_is_listed() -> None:
    strangers = {logged.name: logged.where for logged in LOGGED if logged.name not in EVENTS}
    assert not strangers, "list them in onelane/telemetry/events.py"


def test_every_listed_event_is_in_the_code() -> None:
    assert set(EVENTS) - {logged.name for logged in LOGGED} == set()


def test_an_event_is_logged_with_its_own_fields_only() -> None:
    strangers = {
        logged.where: sorted(more) for logged in LOGGED if (more := logged.fields - set(EVENTS[logged.name].fields))
    }
    assert not strangers, "list them in onelane/telemetry/events.py"


def test_an_event_is_logged_with_all_of_its_fields() -> None:
    missing = {
        logged.where: sorted(fewer)
        for logged in LOGGED
        if not logged.has_more and (fewer := set(EVENTS[logged.name].fields) - logged.fields)
    }
    assert not missing, "who reads the log relies on every field that is listed"


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_logged_at_its_level(name: str, log_lines: Lines) -> None:
    fields = dict.fromkeys(EVENTS[name].fields, 1)
    event(name, **fields)
    assert log_lines == [{"event": name, "log_level": EVENTS[name].level, **fields}]


def test_no_field_is_listed_twice() -> None:
    assert [name for name, listed in EVENTS.items() if len(set(listed.fields)) < len(listed.fields)] == []


def test_an_id_is_logged_as_text(log_lines: Lines) -> None:
    user_id = UUID(int=7)
    event("user_paused", user_id=user_id)
    assert log_lines[0]["user_id"] == str(user_id)


def test_a_strange_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        event("nothing_that_is_listed")


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("event('a', x=1)", [("a", {"x"}, False)]),
        ("event('a' if b else 'c', x=1, **more)", [("a", {"x"}, True), ("c", {"x"}, True)]),
        ("def record(act, **who):\n    event(act, **who)\nrecord('a', x=1)", [("a", {"x"}, False)]),
        ("log.event('a')", []),
    ],
    ids=["plain", "either", "passed on", "another's"],
)
def test_the_search_finds_what_is_logged(code: str, found: list[tuple[str, set[str], bool]]) -> None:
    assert [tuple(logged[1:]) for logged in logged_in(code, "here")] == found


def test_the_search_refuses_a_name_that_is_made_elsewhere() -> None:
    with pytest.raises(AssertionError, match="here:1"):
        list(logged_in("event(name)", "here"))
