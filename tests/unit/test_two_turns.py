"""Turn and AsyncTurn offer the same; what reads is a coroutine of the one and a plain method of the other."""

import inspect
from typing import Any

from onelane.bot.turn import AnyTurn, AsyncTurn, Turn


def methods(kind: type) -> dict[str, Any]:
    return {
        name: function
        for name, function in inspect.getmembers(kind, callable)
        if not name.startswith("_") or name == "_read"
    }


def test_both_kinds_of_turn_have_the_same_methods_with_the_same_parameters() -> None:
    plain, awaited = methods(Turn), methods(AsyncTurn)
    assert plain.keys() == awaited.keys()
    names = {name: list(inspect.signature(function).parameters) for name, function in plain.items()}
    assert names == {name: list(inspect.signature(function).parameters) for name, function in awaited.items()}
    assert {name: inspect.getdoc(function) for name, function in plain.items()} == {
        name: inspect.getdoc(function) for name, function in awaited.items()
    }


def test_what_reads_is_a_coroutine_of_an_async_turn_and_nothing_else_is() -> None:
    of_both = methods(AnyTurn)
    own = {name for name in methods(Turn) if name not in of_both}
    assert own == {"_read", "fetch", "history", "model_messages", "newer", "step", "tool_output"}
    assert {name for name, function in methods(AsyncTurn).items() if inspect.iscoroutinefunction(function)} == own
    assert not [function for function in methods(Turn).values() if inspect.iscoroutinefunction(function)]
