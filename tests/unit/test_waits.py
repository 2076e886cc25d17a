"""Every wait has a deadline, or stands here with what ends it."""

import ast
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from onelane import identity
from onelane.errors import LanesUnavailable, StoreUnavailable
from onelane.postgres.connection import Row
from onelane.postgres.db import Database
from tests.conftest import ROOT

WAITS = {"wait": 0, "join": 0, "result": 0, "acquire": 1, "communicate": 1, "get": 1, "select": 0}
"""Methods that wait without end when no argument is given beyond so many."""
PROGRAMS = {"run", "check_call", "check_output"}
"""Functions of subprocess that take `timeout`."""
BOUND = "asyncio.wait_for"
"""It ends what it waits for."""
WORKER = "worker/onelane"
ENDED_OTHERWISE = {
    "app/onelane_web/serving/threads.py Threads._work self._bell.get()": "it waits for the next request",
    f"{WORKER}/bot/turn.py Turn.fetch self._memory.fetching(attachment).result()": "FETCH_TIMEOUT_S ends it",
    f"{WORKER}/turns/conversation.py _fetched memory.fetching(attachment).result()": "FETCH_TIMEOUT_S ends it",
    f"{WORKER}/dev/incident/naive_bot.py _cross request.result()": "both requests meet within a time, or fail",
    f"{WORKER}/dev/incident/naive_bot.py _cross.let_the_first_act both_have_read.wait()": "the barrier has a time-out",
    f"{WORKER}/doctor/sessions.py _resolve start.wait()": "the barrier has a time-out",
    f"{WORKER}/forks.py Making.hold self._changed.acquire()": "nobody holds it for longer than a fork takes",
    f"{WORKER}/gathering/gatherer.py Gatherer._send_all self._calls.get()": "it waits for the next call",
    f"{WORKER}/gathering/gatherer.py Gatherer.ask self.submit(item, whose).result()": "each request has a deadline",
    f"{WORKER}/inbox/intake.py Intake._take_as_they_come future.result()": "it is done",
    f"{WORKER}/inbox/intake.py Intake._asked future.result()": "it is done",
    f"{WORKER}/inbox/intake.py _problem future.result()": "it is done",
    f"{WORKER}/inbox/intake.py _stands future.result()": "it is done",
    f"{WORKER}/lanes/gathering.py Gathering._send_on self._has_more.wait()": "it waits for the next call",
    f"{WORKER}/processes/supervisor.py Supervisor._run_once self._child.wait()": "a timer kills a worker that is late",
    f"{WORKER}/telemetry/open_telemetry.py OpenTelemetry._await_stop self._is_to_stop.wait()": "it waits for the end",
    f"{WORKER}/testing/bot/in_memory/host.py InlineHost.run"
    " _handlers_loop().run(_awaited(replies, memory)).result()": "the test of the bot has the deadline",
    f"{WORKER}/testing/bot/real/engine.py Real.close self._thread.join()": "SHUTDOWN_GRACE_S ends the worker",
    f"{WORKER}/turns/answers.py _pass_on asked.result()": "it is done",
    f"{WORKER}/turns/event_loop.py EventLoop._go_on self._loop.run_forever()": "the watch asks it for a sign of life",
    f"{WORKER}/turns/hosting.py Host._within_time answer.result()": "it is done",
}
"""Waits without a deadline of their own, and why they end or need not."""
FOLDERS = ("worker/onelane", "app/onelane_web")


def endless_waits(code: str) -> Iterator[str]:
    """Find calls that may wait for ever: where they stand, and their text."""

    def walk(node: ast.AST, place: tuple[str, ...]) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            place = (*place, node.name)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if ast.unparse(node.func) == BOUND and len(node.args) + len(node.keywords) > 1:
                return
            if waits_for_ever(node, node.func):
                yield f"{'.'.join(place)} {ast.unparse(node)}"
        for child in ast.iter_child_nodes(node):
            yield from walk(child, place)

    yield from walk(ast.parse(code), ())


def waits_for_ever(call: ast.Call, function: ast.Attribute) -> bool:
    if function.attr == "run_forever":
        return True
    if ast.unparse(function.value) == "subprocess" and function.attr in PROGRAMS:
        return not any(keyword.arg == "timeout" for keyword in call.keywords)
    if function.attr not in WAITS:
        return False
    bounded = any(keyword.arg in {"timeout", "blocking", "within_s"} for keyword in call.keywords)
    takes_something = bool(call.args) if function.attr in {"wait", "join", "result", "get", "select"} else False
    return not (bounded or takes_something or call.keywords)


def test_every_wait_has_a_deadline_or_a_known_end() -> None:
    found = {
        f"{path.relative_to(ROOT)} {wait}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for wait in endless_waits(path.read_text(encoding="utf-8"))
    }
    assert found == set(ENDED_OTHERWISE), "give it a deadline, or write down what ends it"


@pytest.mark.parametrize(
    ("code", "is_endless"),
    [
        ("process.wait()", True),
        ("process.wait(1)", False),
        ("event.wait(timeout=1)", False),
        ("thread.join()", True),
        ("lock.acquire()", True),
        ("lock.acquire(timeout=1)", False),
        ("lock.acquire(blocking=False)", False),
        ("answer.result()", True),
        ("queue.get()", True),
        ("names.get('one')", False),
        ("process.communicate()", True),
        ("subprocess.run(command)", True),
        ("subprocess.run(command, timeout=1)", False),
        ("loop.run_forever()", True),
        ("asyncio.wait_for(event.wait(), 1)", False),
        ("asyncio.wait_for(event.wait())", True),
    ],
)
def test_a_wait_without_a_deadline_is_found(code: str, is_endless: bool) -> None:
    assert bool(list(endless_waits(code))) is is_endless


def test_who_waits_while_another_thread_reads_whose_lanes_these_are_leaves_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, asked = threading.Event(), threading.Event()

    class Silent(Database):
        def __init__(self) -> None:
            """Connect to nothing."""

        def row(self, *_: object, **_how: object) -> Row:
            asked.set()
            answers.wait()
            raise StoreUnavailable("silent")

    monkeypatch.setattr(identity, "READ_MAX_S", 0.1)
    ours = identity.Identity(Silent())
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(ours.id)
        asked.wait()
        with pytest.raises(LanesUnavailable):
            ours.id()
        answers.set()
        with pytest.raises(LanesUnavailable):
            first.result()
