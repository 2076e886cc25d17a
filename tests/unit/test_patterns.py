"""No pattern of ours takes more than linear time, whatever text it is given: strangers' texts are matched with them.

The worst texts are made from each pattern itself: what matches its beginning, then one letter or one repeated part of
it thousands of times, then something that does not fit. Patterns of pydantic models are matched by a machine without
backtracking, as long as no model asks for another.
"""

import ast
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from itertools import product
from re import _compiler as compiler  # type: ignore[attr-defined]  # Python has no other parser of its patterns
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final

import pytest

from onelane.lanes.refusals import DENIALS
from onelane.postgres.connection import REFUSALS
from tests.conftest import ROOT

METHODS: Final = frozenset({"findall", "finditer", "fullmatch", "match", "search", "split", "sub"})
GIVEN: Final = {"name": ["MediaUrl"], "part": [*DENIALS, *REFUSALS], "pattern": []}
"""What variables in patterns stand for; `pattern` is `matching`'s, whose callers are looked at themselves."""
LETTERS: Final = "a0A-_.:/?@+=& \\\n[]é"
ENDS: Final = ("", "\0")
TIMES: Final = (22, 10_000)
"""The first finds what grows exponentially, before the second does it for ever."""
CPU_S: Final = 0.04
"""A pattern that is linear takes a hundredth of it; 10,000 letters in quadratic time take three times as long."""
NOT_SERVING: Final = {"dev", "testing"}
SQL_PATTERN: Final = re.compile(r"!?~\*?\s*'([^']*)'")


@dataclass(frozen=True)
class Used:
    """A pattern, how it is used, and where."""

    where: str
    method: str
    pattern: re.Pattern[Any]

    def __str__(self) -> str:
        return f"{self.where} {self.method}"


@cache
def trees() -> dict[str, ast.Module]:
    """Parse every module of ours, by its name."""
    return {
        ".".join(path.relative_to(ROOT / root).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text()
        )
        for root in ("app", "worker")
        for path in (ROOT / root).rglob("*.py")
        if path.stem not in {"__main__", "wsgi"} and not NOT_SERVING & set(path.parts)
    }


def used() -> Iterator[Used]:
    """Find each pattern that `re` compiles, with each method that is called of it."""
    for module, tree in trees().items():
        for node in ast.walk(tree):
            match node:
                case (
                    ast.Assign(targets=[target], value=ast.Call() as call)
                    | ast.AnnAssign(target=target, value=ast.Call() as call)
                ) if ast.unparse(call.func) == "re.compile":
                    for method in methods_of(module, ast.unparse(target)):
                        yield from of(module, call.lineno, method, call.args)
                case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=method)) if method in METHODS:
                    yield from of(module, node.lineno, method, node.args)
                case ast.Call() if ast.unparse(node.func).rpartition(".")[2] == "matching":
                    yield from of(module, node.lineno, "fullmatch", node.args[:1])


def methods_of(module: str, name: str) -> set[str]:
    """Return how a compiled pattern is used: in its own module, else wherever its name is."""
    own = methods()[module].get(name)
    return own or set().union(*(by_name.get(name, set()) for by_name in methods().values()))


@cache
def methods() -> dict[str, dict[str, set[str]]]:
    """Find which of `re`'s methods each module calls, by the name of what they are called of."""
    found: dict[str, dict[str, set[str]]] = {}
    for module, tree in trees().items():
        by_name = found.setdefault(module, {})
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in METHODS:
                by_name.setdefault(ast.unparse(node.value).rpartition(".")[2], set()).add(node.attr)
    return found


def of(module: str, line: int, method: str, arguments: Sequence[ast.expr]) -> Iterator[Used]:
    """Evaluate a pattern where it stands."""
    first, *_ = arguments
    space = vars(import_module(module))
    flags = [eval(ast.unparse(one), space) for one in arguments[1:] if ast.unparse(one).startswith("re.")]
    names = {node.id for node in ast.walk(first) if isinstance(node, ast.Name)} & GIVEN.keys() - space.keys()
    for values in product(*(GIVEN[name] for name in sorted(names))):
        pattern = eval(ast.unparse(first), space, dict(zip(sorted(names), values, strict=True)))
        yield Used(f"{module}:{line}", method, re.compile(pattern, *flags))


def attacks(pattern: re.Pattern[Any], times: int) -> Iterator[str]:
    """Make the texts that are worst for backtracking."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode()
    parsed = parser.parse(source, pattern.flags & re.VERBOSE)
    begins = {sample(parsed[:end]) for end in range(len(parsed) + 1)}
    parts = set(LETTERS) | {sample(body) for body in repeated(parsed)} - {""}
    for begin, part, end in product(begins, parts, ENDS):
        yield begin + part * times + end


def repeated(parsed: Any) -> Iterator[Any]:
    """Walk through what is repeated, however deep, and through each branch of it."""
    for code, argument in parsed:
        for inner in inside(code, argument):
            if code in {ops.MAX_REPEAT, ops.MIN_REPEAT}:
                yield inner
            yield from repeated(inner)


def inside(code: Any, argument: Any) -> list[Any]:
    if code in {ops.MAX_REPEAT, ops.MIN_REPEAT, ops.SUBPATTERN}:
        return [argument[-1]]
    return list(argument[1]) if code is ops.BRANCH else []


def sample(parsed: Any) -> str:
    """Write the shortest text that a part of a pattern matches, or nearly."""
    return "".join(_sample(code, argument) for code, argument in parsed)


def _sample(code: Any, argument: Any) -> str:
    if code is ops.LITERAL:
        return chr(argument)
    if code in {ops.MAX_REPEAT, ops.MIN_REPEAT}:
        return sample(argument[-1]) * (argument[0] or 1)
    if code in {ops.SUBPATTERN, ops.BRANCH}:
        return sample(inside(code, argument)[0])
    letter = compiler.compile(parser.SubPattern(parser.State(), [(code, argument)]))
    return next((one for one in LETTERS + "7b" if letter.fullmatch(one)), "")


def slow(method: str, pattern: re.Pattern[Any]) -> str | None:
    """Return the beginning of the first text that takes too long."""
    call: Callable[[Any], Any] = partial(pattern.sub, "") if method == "sub" else getattr(pattern, method)
    for times in TIMES:
        for text in attacks(pattern, times):
            given: Any = text if isinstance(pattern.pattern, str) else text.encode()
            if all(_cpu_s(call, given) > CPU_S for _ in range(3)):  # a neighbour's work is none of the pattern's
                return text[:60]
    return None


def _cpu_s(call: Callable[[Any], Any], given: Any) -> float:
    began = time.thread_time()
    if isinstance(answer := call(given), Iterator):
        list(answer)
    return time.thread_time() - began


USED = sorted(used(), key=str)


def test_there_are_patterns_of_both_packages() -> None:
    assert len(USED) > 60
    assert {one.where.partition(".")[0] for one in USED} == {"onelane", "onelane_web"}


@pytest.mark.parametrize("one", USED, ids=str)
def test_a_pattern_takes_linear_time(one: Used) -> None:
    assert slow(one.method, one.pattern) is None


@pytest.mark.parametrize(
    ("method", "pattern"),
    [
        ("fullmatch", "(a+)+"),
        ("match", r"(?:\w+ ?)*:"),
        ("search", r"\s+$"),
        ("fullmatch", "a*a*b"),
        ("sub", "[a-z]*@"),
    ],
)
def test_a_pattern_that_takes_longer_is_found(method: str, pattern: str) -> None:
    assert slow(method, re.compile(pattern)) is not None


def test_no_model_asks_for_a_machine_that_backtracks() -> None:
    assert not [module for module, tree in trees().items() if "regex_engine" in ast.unparse(tree)]


def test_patterns_in_sql_repeat_nothing_that_repeats_without_bound() -> None:
    found = [pattern for path in (ROOT / "sql").rglob("*.sql") for pattern in SQL_PATTERN.findall(path.read_text())]
    assert found
    assert [pattern for pattern in found if re.search(r"[*+]|,\}|\\[1-9]", pattern)] == []
