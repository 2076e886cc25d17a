"""What passes a screen is taken apart: no long module, no long function; an exception from a rule says why."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

MODULE_LINES_MAX = 250
FUNCTION_LINES_MAX = 40
MODULES = sorted(path for folder in ("app", "worker", "bench") for path in (ROOT / folder).rglob("*.py"))


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines())


def functions_in(code: str) -> dict[str, int]:
    """Count the lines of each function, from its first decorator on: its name and line, and how many."""
    return {
        f"{node.lineno} {node.name}": (node.end_lineno or 0) - _first_line(node) + 1
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _first_line(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 100


def test_no_module_is_too_long() -> None:
    long = {str(path.relative_to(ROOT)): lines for path in MODULES if (lines := lines_of(path)) > MODULE_LINES_MAX}
    assert not long, "look for the noun that wants to come out"


def test_no_function_is_too_long() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{name}": lines
        for path in MODULES
        for name, lines in functions_in(path.read_text()).items()
        if lines > FUNCTION_LINES_MAX
    }
    assert not long, "name the steps, each in a function of its own"


def test_every_exception_from_a_rule_of_security_says_why() -> None:
    lines = [line for path in MODULES for line in path.read_text().splitlines()]
    excepted = [line for line in lines if re.search(r"# noqa: (?:[A-Z]+\d+, )*S\d", line)]
    assert len(excepted) > 10
    assert [line for line in excepted if not re.search(r"# noqa: [A-Z\d, ]+ - \w", line)] == []


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("def f(): pass", 1),
        ("@a\n@b(\n    1)\ndef f():\n    pass", 5),
        ('def f():\n    """One.\n\n    Two."""', 4),
        ("async def f(\n    a,\n):\n    pass\n\n\n", 4),
        ("class A:\n    def f(self):\n        pass\n", 2),
    ],
    ids=["one line", "decorators", "docstring", "async", "method"],
)
def test_a_function_is_counted_whole(code: str, lines: int) -> None:
    assert list(functions_in(code).values()) == [lines]


def test_a_function_inside_another_counts_for_both() -> None:
    assert sorted(functions_in("def f():\n    def g():\n        pass\n    return g").values()) == [2, 4]
