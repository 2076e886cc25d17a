"""Logs: fixed names, one bounded line an event, libraries in the same form, and no text that could be a user's."""

import asyncio
import gc
import io
import json
import logging
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import psycopg
import pytest
import structlog

from onelane import errors
from onelane.errors import BadResult, describe
from onelane.telemetry import libraries
from onelane.telemetry import log as telemetry
from onelane.telemetry.log import LINE_MAX_BYTES, log
from tests import loops

SAID = "what the user said"

Lines = Callable[[], list[dict[str, Any]]]
Configure = Callable[..., io.StringIO]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Configure logging into a stream, and put everything back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    for place, hook in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(place, hook, getattr(place, hook))

    def configure(form: Any, level: str = "INFO", **more: Any) -> io.StringIO:
        stream = io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            telemetry.configure(level, form, **more)
        return stream

    yield configure
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    telemetry.name_turn()
    structlog.reset_defaults()
    vars(log).pop("bind", None)  # configured once, the logger remembers it for good: other tests capture its lines


@pytest.fixture
def lines(configure: Configure) -> Lines:
    stream = configure("json")
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


LOGGING = ("event", "_record")
"""The functions that log an event: `_record` is how the acts of an operator do it."""


def test_an_event_is_one_line_of_json(lines: Lines) -> None:
    log.info("worker_started", worker="a\nb")
    [line] = lines()
    assert (line["event"], line["worker"], line["level"], line["logger"]) == (
        "worker_started",
        "a\nb",
        "info",
        "onelane",
    )
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "fields",
    [
        {"failure": "start " + "x" * 100_000 + " end"},
        {"failure": "é" * 20_000},
        {"failure": "\x00" * 20_000},
        {"failure": "\U0001f600" * 20_000},
        {"frames": ["file.py:1"] * 10_000},
        {f"field_{nr}": "y" * 3_000 for nr in range(20)},
        {f"field_{nr}": nr for nr in range(5_000)},
        {"n" * 20_000: 1},
    ],
    ids=["long", "accents", "escapes", "emoji", "list", "many long", "many", "long name"],
)
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_line_stays_below_9_kb(configure: Configure, fields: dict[str, Any], form: Any) -> None:
    stream = configure(form)
    log.error("task_failed", **fields)
    text = stream.getvalue()
    assert 0 < len(text.encode()) <= LINE_MAX_BYTES + 1 < 9_000
    assert "task_failed" in text


def test_a_long_value_keeps_both_ends(lines: Lines) -> None:
    log.error("task_failed", failure="first frame " + "x" * 100_000 + " KeyError", user_id="u1")
    [line] = lines()
    assert line["failure"].startswith("first frame ")
    assert line["failure"].endswith(" KeyError")
    assert line["user_id"] == "u1"


def failure() -> Exception:
    """Fail as a handler does that quotes its user."""
    try:
        raise ValueError(SAID)  # noqa: TRY301 - it is caught to be returned
    except ValueError as error:
        return error


def test_what_no_renderer_can_word_is_told_all_the_same(lines: Lines) -> None:
    class Sulking:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    log.info("turn_ended", user_id="u1", outcome=Sulking())
    [line] = lines()
    assert (line["event"], line["user_id"], line["unrenderable"]) == ("turn_ended", "u1", "RuntimeError")


def test_an_exception_is_told_without_its_text(lines: Lines) -> None:
    error = failure()
    log.error("task_failed", exc_info=error)
    logging.getLogger("a.library").error("it broke", exc_info=error)
    logging.getLogger("a.library").error("it broke: %s", error)
    ours, theirs, formatted = lines()
    assert ours["exception"].splitlines()[-1] == theirs["exception"].splitlines()[-1] == "ValueError"
    assert "test_telemetry.py" in ours["exception"]
    assert formatted["event"] == "it broke: ValueError"
    assert SAID not in json.dumps(lines())


def test_postgres_quotes_no_row(lines: Lines) -> None:
    error = psycopg.errors.UniqueViolation(f"duplicate key\nDETAIL: Key (text)=({SAID}) already exists.")
    logging.getLogger("psycopg.pool").warning("error connecting in %r: %s", "pool-1", error)
    [line] = lines()
    assert line["event"] == "error connecting in 'pool-1': psycopg.errors.UniqueViolation (SQLSTATE 23505)"


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        (f"Invalid request from ip=::1: Invalid HTTP request line: '{SAID}\n'", "Invalid request from ip=::1"),
        (f"Error handling request GET /hook?token={SAID.replace(' ', '+')}", "Error handling request GET /hook?…"),
        ("Booting worker with pid: 7", "Booting worker with pid: 7"),
    ],
)
def test_gunicorn_quotes_no_request(lines: Lines, said: str, logged: str) -> None:
    logging.getLogger("gunicorn.error").warning(said)
    assert lines()[0]["event"] == logged


def test_an_async_handlers_forgotten_task_quotes_nobody(lines: Lines) -> None:
    async def forget() -> None:
        async def fail() -> None:
            raise ValueError(SAID)

        task = asyncio.ensure_future(fail())
        await asyncio.wait([task])
        del task
        gc.collect()

    loops.run(forget())
    [line] = lines()
    assert line["event"] == "Task exception was never retrieved"
    assert SAID not in json.dumps(line)


def test_a_crash_is_an_event_without_its_text(lines: Lines) -> None:
    def crash() -> None:
        raise RuntimeError(SAID)

    thread = threading.Thread(target=crash)
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError(SAID), None)
    first, second = lines()
    assert first["event"] == second["event"] == "process_crashed"
    assert "in crash" in first["failure"]
    assert SAID not in json.dumps(lines())


def test_ctrl_c_is_no_crash(lines: Lines) -> None:
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert lines() == []


def of_a_library(name: str, level: int, said: str) -> None:
    """Log as an installed package does."""
    place = sysconfig.get_path("purelib") + f"/{name}/client.py"
    logging.getLogger(name).handle(logging.LogRecord(name, level, place, 1, said, (), None))


def test_a_library_is_heard_from_its_warnings_on(lines: Lines) -> None:
    for name in ("httpx", "rq.worker"):
        of_a_library(name, logging.INFO, "asks")
        of_a_library(name, logging.WARNING, "warns")
    assert [(line["logger"], line["event"]) for line in lines()] == [("httpx", "warns"), ("rq.worker", "warns")]


def test_the_handlers_package_is_heard_wherever_it_is_installed(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_own", set())
    of_a_library("shopbot", logging.INFO, "unheard")
    libraries.hear("shopbot")
    of_a_library("shopbot", logging.INFO, "asked https://shop.example/orders")
    assert [line["event"] for line in lines()] == ["asked https://shop.example/orders"]


@pytest.mark.parametrize("level", ["DEBUG", "WARNING"])
@pytest.mark.parametrize(
    ("said", "logged"),
    [
        (
            'HTTP Request: POST https://api.telegram.org/bot12:AAE/sendMessage "HTTP/1.1 200 OK"',
            'HTTP Request: POST https://api.telegram.org/… "HTTP/1.1 200 OK"',
        ),
        ("retry of https://me:word@example.com?key=AIza", "retry of https://example.com/…"),
        ("connection broken: /bot12:AAE/sendMessage", "connection broken: /…"),
        ("cannot reach redis://:word@10.0.0.1:6379", "cannot reach redis://10.0.0.1:6379"),
        ("no answer from +33612345678", "no answer from +…"),
        ("took 12/34 and 3+4", "took 12/34 and 3+4"),
    ],
)
def test_a_library_gives_no_token_and_no_number_away(configure: Configure, level: str, said: str, logged: str) -> None:
    stream = configure("json", level)
    of_a_library("httpx", logging.getLevelNamesMapping()[level], said)
    assert json.loads(stream.getvalue())["event"] == logged


@pytest.mark.parametrize("given", ["0b5e9d3c-7c1d-4d0e-9d52-6c6f2ad7e5a1", "abc.DEF_1"])
def test_a_request_keeps_the_routers_id(lines: Lines, given: str) -> None:
    telemetry.name_request(given)
    log.info("delivery_accepted")
    assert lines()[0]["request_id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 101, "a b", "a\nb", "+33612345678", "é"])
def test_a_request_without_a_sane_id_gets_one(lines: Lines, given: str | None) -> None:
    assert telemetry.name_request(given) != telemetry.name_request(given)
    log.info("delivery_accepted")
    request_id = lines()[0]["request_id"]
    assert request_id != given
    assert len(request_id) == 32


def test_a_handlers_own_words_carry_the_turns_names(lines: Lines) -> None:
    def handle() -> None:
        telemetry.name_turn(message_id="m1", session_id="s1")
        logging.getLogger("mybot").info("asked the shop")

    copy_context().run(handle)
    logging.getLogger("mybot").info("outside")
    inside, outside = lines()
    assert (inside["message_id"], inside["session_id"], inside["logger"]) == ("m1", "s1", "mybot")
    assert "message_id" not in outside


def test_a_terminal_gets_readable_lines(configure: Configure) -> None:
    stream = configure("text")
    log.info("worker_started", slots=4)
    log.error("task_failed", exc_info=failure())
    text = stream.getvalue()
    assert "worker_started" in text.splitlines()[0]
    assert not text.startswith("{")
    assert SAID not in text


def test_on_a_terminal_a_traceback_stands_in_lines_and_in_development_with_its_text(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    unset = threading.Event()
    for module in (errors, telemetry):
        monkeypatch.setattr(module, "shown_texts", unset)
    stream = configure("text")
    log.error("task_failed", failure=describe(failure()))
    head, first, *_, last = stream.getvalue().splitlines()
    assert "task_failed" in head
    assert (first, last) == ("    Traceback (most recent call last):", "    ValueError")
    configure("json", is_development=True)
    assert SAID not in describe(failure())
    configure("text", is_development=True)
    assert describe(failure()).endswith(f"ValueError: {SAID}")


def test_our_own_words_are_told_everywhere(lines: Lines) -> None:
    log.error("task_failed", failure=describe(BadResult("a reply is str or Reply, not int")))
    assert lines()[0]["failure"].endswith("onelane.errors.BadResult: a reply is str or Reply, not int")


def test_auto_means_json_where_nobody_is_watching(configure: Configure) -> None:
    stream = configure("auto")
    log.info("worker_started")
    assert json.loads(stream.getvalue())["event"] == "worker_started"
