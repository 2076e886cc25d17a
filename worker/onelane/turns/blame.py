"""Whose fault it is that a handler raised: the only place that decides.

An outage of our own Postgres is nobody's here. Not the handler's fault either is that somebody else's service is away:
it says so itself (`Later`), or a client library does. Libraries are known by name, and none is imported. Everything
else is a failed attempt.

Asked is what was raised, then what it was raised from, and so on: the first that is known decides. A group of errors,
as a TaskGroup raises it, is excused when each of its errors is.
"""

from collections.abc import Iterator
from typing import Final

from onelane.errors import FileAway, HandlerFailed, HandlerWaits, Later, StoreUnavailable, describe

CAUSES_MAX = 16
AWAY_STATUSES: Final = frozenset({429, 502, 503, 504, 529})
"""Answers by which an HTTP service, or a proxy before it, says: not now."""
AWAY_CLASSES: Final = frozenset({"08", "53", "55", "57", "58"})
"""Classes of SQLSTATE by which a database of the handler's own says: not now; it may also say nothing at all."""
HTTPX: Final = frozenset({"TimeoutException", "NetworkError", "ProxyError", "RemoteProtocolError"})
MODEL: Final = frozenset({"APIConnectionError"})
DATABASE: Final = frozenset({"OperationalError"})
LIBRARIES: Final = {
    "httpx": HTTPX,
    "httpx2": HTTPX,
    "httpcore": HTTPX,
    "httpcore2": HTTPX,
    "requests": frozenset({"ConnectionError", "Timeout", "ChunkedEncodingError"}),
    "urllib3": frozenset(
        {"TimeoutError", "NewConnectionError", "MaxRetryError", "ProtocolError", "ProxyError", "SSLError"}
    ),
    "urllib": frozenset({"URLError"}),
    "http": frozenset({"BadStatusLine", "IncompleteRead"}),
    "aiohttp": frozenset({"ClientConnectionError", "ClientPayloadError"}),
    "asyncio": frozenset({"IncompleteReadError"}),
    "openai": MODEL,
    "anthropic": MODEL,
    "redis": frozenset({"ConnectionError", "TimeoutError"}),
    "psycopg": DATABASE,
    "psycopg2": DATABASE,
}
"""The errors of a connection or its time, with all that derive from them, by the package that defines them."""
FILES: Final = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""OSErrors about the bot's own files, which no waiting mends."""


def blamed(error: BaseException) -> HandlerFailed | StoreUnavailable:
    """Return what to raise in place of what a handler raised."""
    if isinstance(error, HandlerFailed):
        return error
    match _excuse(error):
        case StoreUnavailable() as outage:
            return outage
        case Later() as later:
            return HandlerWaits(describe(error), later.seconds, later.reason)
        case None:
            return HandlerFailed(describe(error))
        case _:
            return HandlerWaits(describe(error))


def _excuse(error: BaseException, depth: int = 0) -> BaseException | None:
    """Find the error that says that the handler is not to blame."""
    for cause in _causes(error):
        if isinstance(cause, BaseExceptionGroup) and depth < CAUSES_MAX:
            excuses = [_excuse(one, depth + 1) for one in cause.exceptions]
            return excuses[0] if all(excuse is not None for excuse in excuses) else None
        if isinstance(cause, Later | StoreUnavailable | FileAway):
            return cause
        if _is_of_a_library(cause):
            return cause if _is_away(cause) else None
        if isinstance(cause, OSError):
            return None if isinstance(cause, FILES) else cause
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _is_of_a_library(error: BaseException) -> bool:
    return any(_package(kind) in LIBRARIES for kind in type(error).__mro__)


def _is_away(error: BaseException) -> bool:
    if (status := _status(error)) is not None:
        return status in AWAY_STATUSES
    if all(kind.__name__ not in LIBRARIES.get(_package(kind), ()) for kind in type(error).__mro__):
        return False
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return sqlstate is None or str(sqlstate)[:2] in AWAY_CLASSES


def _package(kind: type) -> str:
    return str(kind.__module__).partition(".")[0]


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of the answer that the error is about; None when there was no answer."""
    for part in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            if isinstance(status := getattr(part, name, None), int):
                return status
    return None
