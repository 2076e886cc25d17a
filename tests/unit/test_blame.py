"""Which of the errors that a handler may raise are its own fault, and which are somebody else's service."""

import errno
import http.client
import socket
import ssl
import urllib.error
from types import SimpleNamespace
from typing import Any

import aiohttp
import psycopg
import pytest
import redis
import requests
import urllib3

from onelane.errors import HandlerFailed, HandlerWaits, Later, StoreUnavailable, kind_of
from onelane.storable import is_storable
from onelane.turns.blame import CAUSES_MAX, blamed

HEADERS = http.client.HTTPMessage()


def of_library(path: str, *bases: str, **attributes: Any) -> Exception:
    """Make an error as a library that is not installed here has it: `package.Name`, derived from others of it."""
    package, _, name = path.rpartition(".")
    kind: type[Exception] = Exception
    for base in (*bases, name):
        kind = type(base, (kind,), {"__module__": package})
    error = kind()
    vars(error).update(attributes)
    return error


def answered(error: Exception, status: int) -> Exception:
    vars(error)["response"] = SimpleNamespace(status_code=status)
    return error


def caused(error: BaseException, *causes: BaseException) -> BaseException:
    last = error
    for cause in causes:
        last.__cause__ = cause
        last = cause
    return error


def chain_of(length: int) -> BaseException:
    return caused(*[ValueError() for _ in range(length)], ConnectionResetError())


def url_error(status: int) -> Exception:
    return urllib.error.HTTPError("https://model", status, "", HEADERS, None)


def client_error(status: int) -> Exception:
    return aiohttp.ClientResponseError(SimpleNamespace(real_url=""), (), status=status)  # type: ignore[arg-type]


AWAY = [
    # Python's own
    ConnectionRefusedError(),
    ConnectionResetError(),
    BrokenPipeError(),
    TimeoutError(),
    socket.gaierror(),
    socket.herror(),
    ssl.SSLError(),
    ssl.SSLEOFError(),
    OSError(),
    OSError(errno.ENETUNREACH, ""),
    OSError(errno.EMFILE, ""),
    http.client.RemoteDisconnected(""),
    http.client.BadStatusLine("HTTP"),
    http.client.IncompleteRead(b""),
    urllib.error.URLError("refused"),
    url_error(503),
    # installed here
    requests.ConnectionError(),
    requests.ConnectTimeout(),
    requests.ReadTimeout(),
    requests.exceptions.ChunkedEncodingError(),
    answered(requests.HTTPError(), 529),
    urllib3.exceptions.ReadTimeoutError(None, "", ""),  # type: ignore[arg-type]
    urllib3.exceptions.NewConnectionError(None, ""),  # type: ignore[arg-type]
    urllib3.exceptions.MaxRetryError(None, ""),  # type: ignore[arg-type]
    urllib3.exceptions.ProtocolError(),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ServerTimeoutError(),
    aiohttp.ClientPayloadError(),
    client_error(429),
    redis.ConnectionError(),
    redis.TimeoutError(),
    redis.BusyLoadingError(),
    psycopg.OperationalError(),
    psycopg.errors.AdminShutdown(),
    psycopg.errors.TooManyConnections(),
    psycopg.errors.QueryCanceled(),
    type("PoolTimeout", (psycopg.OperationalError,), {})(),
    # not installed here
    of_library("httpx.ConnectTimeout", "TransportError", "TimeoutException"),
    of_library("httpx2.ReadError", "TransportError", "NetworkError"),
    of_library("httpx.RemoteProtocolError", "TransportError", "ProtocolError"),
    answered(of_library("httpx2.HTTPStatusError", "HTTPError"), 502),
    of_library("openai.APITimeoutError", "APIConnectionError"),
    of_library("openai.RateLimitError", "APIStatusError", status_code=429, code="rate_limit_exceeded"),
    of_library("anthropic.APIConnectionError", "APIError"),
    of_library("anthropic._exceptions.OverloadedError", "APIStatusError", status_code=529),
    of_library("psycopg2.OperationalError", "DatabaseError", pgcode="57P01"),
    # raised from, and together with, others
    caused(RuntimeError(), ConnectionResetError()),
    caused(of_library("openai.APIConnectionError"), of_library("httpx.ConnectError", "NetworkError")),
    chain_of(CAUSES_MAX - 1),
    ExceptionGroup("", [TimeoutError(), ExceptionGroup("", [ConnectionResetError()])]),
]

ATTEMPTS = [
    ValueError(),
    SystemExit(),
    KeyboardInterrupt(),
    http.client.CannotSendRequest(),
    FileNotFoundError(),
    PermissionError(),
    url_error(404),
    requests.exceptions.InvalidURL(),
    requests.JSONDecodeError("", "", 0),
    answered(requests.HTTPError(), 400),
    urllib3.exceptions.LocationParseError(""),
    aiohttp.InvalidURL(""),
    client_error(401),
    redis.ResponseError(),
    redis.DataError(),
    psycopg.errors.UniqueViolation(),
    psycopg.errors.ProgramLimitExceeded(),
    of_library("httpx.UnsupportedProtocol", "TransportError"),
    answered(of_library("httpx.HTTPStatusError", "HTTPError"), 500),
    of_library("openai.BadRequestError", "APIStatusError", status_code=400, code="context_length_exceeded"),
    of_library("myhttpx.ConnectError", "NetworkError"),
    of_library("tests.ConnectionError"),
    chain_of(CAUSES_MAX),
    ExceptionGroup("", [TimeoutError(), ValueError()]),
    caused(url_error(404), ConnectionResetError()),
]


@pytest.mark.parametrize("error", AWAY, ids=kind_of)
def test_a_service_that_is_away_is_waited_for(error: Exception) -> None:
    waits = blamed(error)
    assert isinstance(waits, HandlerWaits)
    assert waits.seconds is None
    assert str(waits).endswith(kind_of(error))


@pytest.mark.parametrize("error", ATTEMPTS, ids=kind_of)
def test_everything_else_is_a_failed_attempt(error: BaseException) -> None:
    assert type(blamed(error)) is HandlerFailed


def test_later_holds_wherever_it_was_raised() -> None:
    for error in (Later(7, "why"), caused(ValueError(), Later(7, "why")), ExceptionGroup("", [Later(7, "why")])):
        waits = blamed(error)
        assert isinstance(waits, HandlerWaits)
        assert (waits.seconds, waits.reason) == (7, "why")
        assert "why" not in str(waits)


def test_an_outage_of_our_postgres_stays_one_however_it_is_wrapped() -> None:
    outage = StoreUnavailable("Postgres did not answer")
    assert blamed(caused(ValueError(), outage)) is outage
    assert blamed(ExceptionGroup("", [outage])) is outage


def test_a_circle_of_causes_ends() -> None:
    error = ValueError()
    error.__cause__ = caused(KeyError(), error)
    assert type(blamed(error)) is HandlerFailed


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_an_error_of_any_name_can_be_stored(name: str) -> None:
    error = of_library("httpx.ConnectError")
    type(error).__qualname__ = name
    type(error).__module__ = name
    assert is_storable(str(blamed(error)))
