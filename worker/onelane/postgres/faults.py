"""Whose fault an error of Postgres is: the only place that decides, by what is wrong and not by the driver's class.

The whole server is away, for this process, when its connection broke (08), it stops, starts or was told to (57P0x), its
disk is full (53100), all its connections are in use (53300), or it takes no writes (25006).
Not the message's fault, whatever it was about, are these and a broken transaction (25), a conflict (40), a schema or a
right that is missing (42), a lack of resources (53), a lock that somebody holds (55), an operator or a time-out (57)
and a failing system (58). Everything else is wrong with what was to be stored.
"""

from typing import Final

import psycopg

from onelane.errors import StoreAway, StoreDenied, StoreRefused, StoreUnavailable

CONNECTION_LOST: Final = "08006"
NOT_STORABLE: Final = "22000"
AWAY: Final = ("08", "57P", "53100", "53300", "25006")
NOT_THE_MESSAGES: Final = ("08", "25", "40", "42", "53", "55", "57", "58")
CONFLICT: Final = "40"
LOCK_NOT_AVAILABLE: Final = "55P03"
QUERY_CANCELED: Final = "57014"
"""Its time was over, or an operator ended it."""
PREPARED_ELSEWHERE: Final = ("26000", "42P05")
"""A prepared statement is missing, or is there already: the connection leads to another server process than before."""
MISFITS: Final = frozenset({"3F000", "42501", "42703", "42704", "42883", "42P01"})
"""A schema, a right, a column, a type, a function or a table is missing."""
POOLER: Final = "a pooler stands before it that keeps nothing for a session: set PG_POOLER=transaction"


class Unanswered(StoreUnavailable):
    """Postgres gave no answer in a call's own time: it may be away, or busy with this one statement."""


def sqlstate_of(error: psycopg.Error) -> str:
    """Return the error's SQLSTATE. The driver's own errors have none: the connection broke, or it refused a value."""
    if error.sqlstate is not None:
        return error.sqlstate
    return CONNECTION_LOST if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) else NOT_STORABLE


def is_away(sqlstate: str) -> bool:
    """Whether no other statement would fare better over this connection."""
    return sqlstate.startswith(AWAY)


def is_worth_repeating(sqlstate: str) -> bool:
    """Whether the same statement may succeed at once over another connection. Who waited for a lock does not again."""
    return is_away(sqlstate) or sqlstate.startswith(CONFLICT)


def is_held_up(sqlstate: str) -> bool:
    """Whether another transaction was in the way."""
    return sqlstate.startswith((CONFLICT, LOCK_NOT_AVAILABLE))


def misfit(error: psycopg.Error | StoreUnavailable) -> StoreDenied | None:
    """Make the error of a database that is not as this release needs it; None for what is another's fault."""
    sqlstate = sqlstate_of(error) if isinstance(error, psycopg.Error) else error.sqlstate
    if sqlstate not in MISFITS:
        return None
    return StoreDenied(
        f"the database is not of this release, or its user may not do this (SQLSTATE {sqlstate}): run `onelane migrate`"
    )


def refusal(sqlstate: str) -> StoreUnavailable | StoreRefused:
    """Make the error of what Postgres refused."""
    if sqlstate in PREPARED_ELSEWHERE:
        return StoreDenied(f"no connection to Postgres: {POOLER}")
    if is_away(sqlstate):
        return StoreAway(f"Postgres is away: SQLSTATE {sqlstate}")
    if sqlstate.startswith(NOT_THE_MESSAGES):
        return StoreUnavailable(f"Postgres refused for now: SQLSTATE {sqlstate}", sqlstate)
    return StoreRefused(sqlstate)
