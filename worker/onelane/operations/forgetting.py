"""Forgetting a person, and giving out all that is stored of one.

Both lanes of the person are held meanwhile: no turn runs, and nothing is sent. Redis is emptied first, so that what is
left when the act dies in the middle is found again: Postgres still knows the person, and the act is repeated.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Final, Protocol
from uuid import UUID

from onelane import keys
from onelane.channels import Provider
from onelane.errors import LaneBusy
from onelane.lanes.lanes import Lanes
from onelane.model import Lease, Value
from onelane.operations.audit import record
from onelane.operations.merging import held, hold_on
from onelane.operations.person import Person, Transaction, find_person, rows_of
from onelane.postgres.db import Database
from onelane.telemetry.log import event
from onelane.telemetry.numbers import FORGOTTEN

HISTORY: Final = "SELECT forget_history(%(users)s, %(most)s) AS lines"
LINES_AT_ONCE: Final = 1_000
FORGET: Final = """
SELECT messages, quarantined FROM forget_user(%(users)s, %(names)s, %(spellings)s)
"""
JOBS: Final = """
SELECT id FROM inbox WHERE user_id = ANY(%(users)s) UNION ALL SELECT id FROM outbox WHERE user_id = ANY(%(users)s)
UNION ALL SELECT id FROM messages WHERE user_id = ANY(%(users)s) AND is_dead
"""
RECORD: Final = """
SELECT record_act(gen_random_uuid(), %s, 'user_forgotten', NULL, jsonb_build_object('messages', %s::bigint))
"""
PATIENCE: Final = """
SELECT set_config('statement_timeout', '100s', true) AS statement, set_config('lock_timeout', '10s', true) AS lock,
       set_config('idle_in_transaction_session_timeout', '60s', true) AS idle
"""
"""What quarantine has is looked through, and whoever writes to the user waits meanwhile."""
JOBS_AT_ONCE: Final = 500
LOOKS_MAX: Final = 5
"""Who the person is is read again once the lanes are held: a merge may have ended meanwhile."""
MERGED: Final = "the user is being merged with others: try again"
Leases = list[tuple[Lanes, dict[UUID, Lease]]]


class Services(Protocol):
    """What is needed of `bootstrap.Services`."""

    @property
    def database(self) -> Database:
        """Postgres."""

    @property
    def lanes(self) -> Lanes:
        """The lanes of turns."""

    @property
    def out_lanes(self) -> Lanes:
        """The lanes of replies."""

    @property
    def providers(self) -> Mapping[str, Provider]:
        """By the channel's name."""


class Forgotten(Value):
    """What is gone."""

    messages: int
    quarantined: int


def forget(services: Services, user_id: UUID, by: str) -> Forgotten | None:
    """Forget the person behind a user; None when there is no such user.

    Raise LaneBusy when a turn, a request or a merge does not end, LanesUnavailable and StoreUnavailable: it is to be
    repeated.
    """
    kinds = (services.lanes, services.out_lanes)
    person, _ = _look(services, user_id)
    for _ in range(LOOKS_MAX):
        if person is None:
            return None
        users = person.users
        with ExitStack() as holding:
            leases = [(lanes, holding.enter_context(held(lanes, users))) for lanes in kinds]
            person, waiting = _look(services, user_id)
            if person is None or person.users == users:
                forgotten = _forget_held(services, person, waiting, leases, user_id, by) if person else None
                for lanes in kinds:
                    for user in users:
                        lanes.erase(user)
                return forgotten
    raise LaneBusy(MERGED)


def export(services: Services, user_id: UUID, by: str) -> Iterator[tuple[str, Any]]:
    """Read all that is stored of the person behind a user: (table, row)."""
    record(services.database, by, "user_exported", user_id)
    with services.database.transaction() as transaction:
        transaction.execute(PATIENCE)
        person = find_person(transaction, user_id, services.providers)
        if person is not None:
            yield from rows_of(transaction, person)


def _look(services: Services, user_id: UUID) -> tuple[Person | None, list[UUID]]:
    """Read who is to be forgotten, and what of them may have a job."""
    with services.database.transaction() as transaction:
        person = find_person(transaction, user_id, services.providers)
        return person, [row.id for row in transaction.execute(JOBS, person.values)] if person else []


def _forget_held(
    services: Services, person: Person, waiting: list[UUID], leases: Leases, user_id: UUID, by: str
) -> Forgotten | None:
    _empty_redis(services.lanes, person, waiting)
    lines = _forget_history(services.database, person, leases)
    with services.database.transaction() as transaction:
        transaction.execute(PATIENCE)
        now = find_person(transaction, user_id, services.providers)
        forgotten = _in_postgres(transaction, now, person.users, lines, by)
    if forgotten is not None:
        FORGOTTEN.count("user")
        event("user_forgotten", by=by, messages=forgotten.messages)
    return forgotten


def _forget_history(database: Database, person: Person, leases: Leases) -> int:
    """Forget what was said, LINES_AT_ONCE in a transaction, and hold the lanes meanwhile; return how many lines."""
    total: int = 0
    while True:
        with database.transaction() as transaction:
            transaction.execute(PATIENCE)
            row = transaction.execute(HISTORY, {"users": list(person.users), "most": LINES_AT_ONCE}).fetchone()
        assert row is not None  # noqa: S101 - the function answers one row
        total += row.lines
        if row.lines < LINES_AT_ONCE:
            return total
        for lanes, held_leases in leases:
            hold_on(lanes, held_leases)


def _in_postgres(
    transaction: Transaction, person: Person | None, users: tuple[UUID, ...], lines: int, by: str
) -> Forgotten | None:
    """Forget the rest, of which there is as much as came meanwhile; `lines` are gone before.

    Raise LaneBusy for more users than the `users` whose lanes are held: a merge while Redis is away holds none.
    """
    if person is None:
        return None
    if person.users != users:
        raise LaneBusy(MERGED)
    row = transaction.execute(FORGET, person.values).fetchone()
    assert row is not None  # noqa: S101 - the function answers one row
    transaction.execute(RECORD, (by, lines + row.messages))
    return Forgotten(messages=lines + row.messages, quarantined=row.quarantined)


def _empty_redis(lanes: Lanes, person: Person, waiting: list[UUID]) -> None:
    """Delete jobs and tracebacks, and what RQ's own tools have put beside them."""
    names = [
        *(key for one in waiting for key in (keys.job(one), keys.results(one))),
        *(
            f"{prefix}{keys.queue_name(user, kind)}"
            for user in person.users
            for kind in keys.KINDS
            for registry, prefix in keys.RQ_REGISTRY_PREFIXES.items()
            if registry != "failed"  # by it the lane's dead are found
        ),
    ]
    for first in range(0, len(names), JOBS_AT_ONCE):
        lanes.scripts.ask(partial(lanes.client.unlink, *names[first : first + JOBS_AT_ONCE]))
