"""What libraries log: nothing below WARNING, and nothing that quotes a user or holds a secret.

A library is what is installed. A bot's own modules, and the package of its handler wherever that lies, are heard from
LOG_LEVEL on in their own words. Gunicorn is heard so too: its records tell how the web starts and ends. With
LOG_LEVEL=DEBUG all libraries are heard; their addresses are cut even then.
"""

import logging
import re
import sysconfig
from typing import Final

from onelane.errors import kind_of

PLACES: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
SECRET: Final = re.compile(
    r"""(?P<host>[a-z][a-z0-9+.-]{0,30}://)(?:[^\s/?\#'"<>]*@)?(?P<name>[^\s/?\#'"<>]*)(?P<path>[^\s'"<>]*)
        | (?<![\w/]) / [^\s'"<>]{2,}
        | \+ \d{7,}""",
    re.VERBOSE,
)
"""An address or a path, where tokens and senders stand, and a phone number. Of an address the host is kept."""
QUERY: Final = re.compile(r"\?\S*")
INVALID_REQUEST: Final = re.compile(r"(Invalid request from ip=\S+):\s.*")

_own = set[str]()


def hear(package: str) -> None:
    """Take this package for the bot's own, wherever it is installed."""
    _own.add(package)


def passes(record: logging.LogRecord) -> bool:
    """Decide whether a record is logged, and take out of it what must not be."""
    _name_exceptions(record)
    library = _library_of(record)
    if not library:
        return True
    if record.levelno < logging.WARNING and library != "gunicorn" and logging.getLogger().level > logging.DEBUG:
        return False
    record.msg, record.args = _without_secrets(record, library), ()
    return True


def _library_of(record: logging.LogRecord) -> str:
    """Name the library that logs; empty for the bot, for ourselves, and for Python's warnings."""
    package = record.name.partition(".")[0]
    is_installed = record.pathname.startswith(PLACES) or package in {"gunicorn", "rq"}
    return package if is_installed and package not in _own and record.name != "py.warnings" else ""


def _without_secrets(record: logging.LogRecord, library: str) -> str:
    """Return the first line of a library's message, without what it may give away: below it asyncio shows the task."""
    said = record.getMessage().partition("\n")[0]
    if library == "gunicorn":  # an invalid request may be the rest of a body
        return QUERY.sub("?…", INVALID_REQUEST.sub(r"\1", said))
    return SECRET.sub(_cut, said)


def _cut(found: re.Match[str]) -> str:
    if found["host"]:
        return found["host"] + found["name"] + ("/…" if found["path"] else "")
    return f"{found[0][0]}…"


def _name_exceptions(record: logging.LogRecord) -> None:
    """Name the exceptions in a record: their texts may quote a user."""
    if isinstance(record.msg, BaseException):
        record.msg, record.args = _named(record.msg), ()
    if isinstance(record.args, tuple):
        record.args = tuple(_named(one) if isinstance(one, BaseException) else one for one in record.args)


def _named(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None)
    return f"{kind_of(error)} (SQLSTATE {state})" if state else kind_of(error)
