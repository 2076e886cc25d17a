"""Whose fault an error of Postgres is: the only place that decides.

Not the message's fault, whatever it was about, are a connection that broke (08), a read-only server or a broken
transaction (25), a conflict (40), a schema or a right that is missing (42), a lack of resources (53), a lock that
somebody holds (55), an operator or a time-out (57) and a failing system (58). Everything else is wrong with what was to
be stored.
"""

from typing import Final

from onelane.errors import StoreRefused, StoreUnavailable

NOT_THE_MESSAGES: Final = frozenset({"08", "25", "40", "42", "53", "55", "57", "58"})


def is_outage(sqlstate: str | None) -> bool:
    """Whether the same statement may succeed later; without a state the server said nothing at all."""
    return sqlstate is None or sqlstate[:2] in NOT_THE_MESSAGES


def refusal(sqlstate: str) -> StoreUnavailable | StoreRefused:
    """Make the error of an item of a list that Postgres refused."""
    if is_outage(sqlstate):
        return StoreUnavailable(f"Postgres refused for now: {sqlstate}")
    return StoreRefused(sqlstate)
