"""Writes log events, and the records of libraries in the same format: one event, one line below LINE_MAX_BYTES.

The text of an exception is not written, since Postgres quotes rows in it and a handler the user; its class, its place
and its SQLSTATE are. Our own texts are written, and in development, on a terminal, all of them.
"""

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from textwrap import indent
from typing import Any, Final, Literal, TextIO, get_args
from uuid import UUID, uuid4

import structlog

from onelane.errors import describe, shown_texts
from onelane.telemetry import brief, libraries
from onelane.telemetry.brief import Brief
from onelane.telemetry.events import EVENTS
from onelane.telemetry.standard_error import StandardError

Log = structlog.typing.FilteringBoundLogger
Form = Literal["auto", "brief", "json", "text"]
Fields = structlog.typing.EventDict

OURS: Final = "onelane"
LINE_MAX_BYTES: Final = 8_900
"""Log routers split lines at 10,000 bytes, with a header of their own before each."""
VALUE_MAX: Final = (6_000, 2_000, 500, 100)
"""How many characters of each value to keep, tried in this order until the line fits."""
FIELDS_MAX: Final = 24
ESSENTIAL: Final = ("event", "level", "timestamp", "logger", "request_id", "user_id", "message_id", "session_id")
_names: ContextVar[Mapping[str, object]] = ContextVar("_names")
"""What all log lines of this context have."""
REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def configure(level: str, form: Form, *, is_development: bool = False) -> None:
    """Send every record, ours and the libraries', to standard error: JSON, readable, or the turns alone (`brief`).

    In development, what is readable has the texts of a handler's errors too.
    """
    as_text = form in {"brief", "text"} or (form == "auto" and sys.stderr.isatty())
    if as_text and is_development:
        shown_texts.set()
    stamped: list[structlog.typing.Processor] = [
        merge_names,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _describe_exception,
    ]
    readable = Brief(Readable(has_colors=False)) if form == "brief" else Readable()
    rendered = Bounded(readable if as_text else structlog.processors.JSONRenderer())
    handler: logging.StreamHandler[Any] = logging.StreamHandler(_standard_error())
    handler.addFilter(libraries.passes)
    if form == "brief":
        handler.addFilter(brief.passes)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*stamped, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, rendered],
        )
    )
    structlog.configure(
        processors=[*stamped, _add_our_name, rendered],
        logger_factory=lambda *_: Lines(handler),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    _log_uncaught_errors()


def _standard_error() -> TextIO | StandardError:
    """Return what is written to within a deadline; as it is where it has been replaced by what is no file."""
    try:
        return StandardError(sys.stderr, lambda lines: event("log_left_out", lines=lines))
    except (OSError, ValueError):
        return sys.stderr


def configure_by_environment() -> None:
    """Configure a process that reads no settings: gunicorn's master, a suspect message's child.

    A wrong value is not reported here, but by the process that reads the settings.
    """
    level, form = os.environ.get("LOG_LEVEL", "").upper(), os.environ.get("LOG_FORMAT", "")
    configure(
        level if level in {"DEBUG", "INFO", "WARNING", "ERROR"} else "INFO",
        next((known for known in get_args(Form) if known == form), "auto"),
        is_development=os.environ.get("DEVELOPMENT", "").lower() in {"true", "1"},
    )


def name_request(given: str | None) -> str:
    """Add an id to all log lines of this request: the router's if it is well formed, else a new one."""
    request_id = given if given and REQUEST_ID.fullmatch(given) else uuid4().hex
    _names.set({"request_id": request_id})
    return request_id


def name_turn(**names: object) -> None:
    """Add the turn's ids to all log lines of this context, which is a shift's; those of the handler's loggers too."""
    _names.set(names)


def merge_names(_logger: Any, _method: str, fields: Fields) -> Fields:
    """Add the names of the request or the turn to an event, below what it has itself."""
    for name, value in _names.get({}).items():
        fields.setdefault(name, value)
    return fields


class Lines:
    """Writes our rendered events directly: as a record of `logging`, an event costs four times as much."""

    def __init__(self, handler: "logging.StreamHandler[Any]") -> None:
        self._handler = handler

    def msg(self, line: str) -> None:
        """Write one line. A closed or full log must not end the process."""
        with suppress(OSError, ValueError), self._handler.lock or nullcontext():
            self._handler.stream.write(line + self._handler.terminator)
            self._handler.flush()

    debug = info = warning = error = critical = msg


class Readable:
    """A renderer for people: an event is a line, and what has lines of its own, as tracebacks do, stands below it."""

    def __init__(self, *, has_colors: bool = True) -> None:
        self._render = structlog.dev.ConsoleRenderer(
            colors=has_colors, exception_formatter=structlog.dev.plain_traceback
        )

    def __call__(self, logger: Any, method: str, fields: Fields) -> str:
        """Render."""
        below = {name: value for name, value in fields.items() if isinstance(value, str) and "\n" in value}
        line = self._render(logger, method, {name: fields[name] for name in fields if name not in below})
        return "\n".join([str(line), *(indent(value.rstrip(), "    ") for value in below.values())])


class Bounded:
    """A renderer that keeps lines below LINE_MAX_BYTES: it cuts the middle out of long values."""

    def __init__(self, render: Any) -> None:
        self._render = render

    def __call__(self, logger: Any, method: str, fields: Fields) -> str:
        """Render, with as much of each value as fits. A value that cannot be rendered must not end the caller."""
        try:
            return self._bounded(logger, method, fields)
        except Exception as error:  # noqa: BLE001 - a handler may log anything
            named = {name: str(value) for name, value in _essential(fields)}
            return str(self._render(logger, method, {**named, "unrenderable": type(error).__name__}))

    def _bounded(self, logger: Any, method: str, fields: Fields) -> str:
        line: str = self._render(logger, method, dict(fields))
        if _fits(line):
            return line
        kept = dict([*_essential(fields), *fields.items()][:FIELDS_MAX])
        for value_max in VALUE_MAX:
            line = self._render(logger, method, {name: _cut(value, value_max) for name, value in kept.items()})
            if _fits(line):
                return line
        return str(self._render(logger, method, {name: _cut(value, VALUE_MAX[-1]) for name, value in _essential(kept)}))


def _essential(fields: Fields) -> list[tuple[str, Any]]:
    return [(name, fields[name]) for name in ESSENTIAL if name in fields]


def _fits(line: str) -> bool:
    return len(line.encode(errors="replace")) <= LINE_MAX_BYTES


def _cut(value: Any, most: int) -> Any:
    """Cut the middle out: a traceback begins with the place and ends with the kind."""
    if value is None or isinstance(value, (bool, float)):
        return value
    text = value if isinstance(value, str) else str(value)
    if len(text) <= most:
        return value
    return f"{text[: most // 2]} … {text[-(most // 2) :]}"


def _add_our_name(_logger: Any, _method: str, fields: Fields) -> Fields:
    fields.setdefault("logger", OURS)
    return fields


def _describe_exception(_logger: Any, _method: str, fields: Fields) -> Fields:
    given = fields.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        fields["exception"] = describe(error)
        if state := getattr(error, "sqlstate", None):
            fields["sqlstate"] = state
    return fields


def _log_uncaught_errors() -> None:
    """Log uncaught exceptions as events; Python's own report would quote the message."""
    sys.excepthook = lambda _kind, error, _tb: _crashed(error)
    sys.unraisablehook = lambda unraisable: _crashed(unraisable.exc_value)
    threading.excepthook = lambda crash: _crashed(crash.exc_value)
    logging.captureWarnings(capture=True)


def _crashed(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
        event("process_crashed", failure=describe(error))


log: Log = structlog.get_logger(OURS)


def ms_since(began: float) -> float:
    """Return the milliseconds since `began`, on the monotonic clock, as events have them."""
    return round((time.monotonic() - began) * 1000, 1)


def event(name: str, **fields: object) -> None:
    """Log one of EVENTS, at its level."""
    getattr(log, EVENTS[name].level)(name, **{field: _value(value) for field, value in fields.items()})


def _value(value: object) -> object:
    return str(value) if isinstance(value, UUID) else value
