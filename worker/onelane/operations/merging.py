"""Making one user of two, while both may be writing: both lanes are held, so that no turn of either runs meanwhile."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final
from uuid import UUID, uuid4

from onelane.errors import LaneBusy, LanesUnavailable
from onelane.lanes.lanes import Lanes
from onelane.model import Lease, Value
from onelane.operations.audit import Entry
from onelane.postgres.db import Database
from onelane.telemetry.log import event

HOLD_S: Final = 30.0
"""For how long a lane stays held whose act has died."""
HOLD_WAIT_S: Final = 60.0
LOOK_EVERY_S: Final = 0.02
MERGED_INTO: Final = "SELECT merged_into FROM users WHERE id = %s"


class Merged(Value):
    """What became of a merge."""

    did: bool
    """False: they were one before."""
    moved: int = 0
    """How many waiting messages have a new number."""
    redis: bool = True
    """False: Redis was away; the workers update it later."""


def merge(database: Database, lanes: Lanes, winner: UUID, loser: UUID, entry: Entry) -> Merged | None:
    """Merge `loser` into `winner`; None for users that cannot be merged. Raise LaneBusy when a turn does not end."""
    known = database.row(MERGED_INTO, (loser,))
    if known is not None and known.merged_into == winner:
        return Merged(did=False)
    try:
        with held(lanes, (winner, loser)) as leases:
            moved = _in_postgres(entry, winner, loser)
            if moved:
                lanes.finish(leases[loser], moved)
                lanes.enqueue_many([(winner, message) for message in moved])
            lanes.forget_session(loser)
    except LanesUnavailable as error:
        event("lanes_not_updated", error=str(error))
        moved = _in_postgres(entry, winner, loser)
        return None if moved is None else Merged(did=True, moved=len(moved), redis=False)
    return None if moved is None else Merged(did=True, moved=len(moved))


def _in_postgres(entry: Entry, winner: UUID, loser: UUID) -> list[UUID] | None:
    """Merge them where the truth is; return the messages that wait in another order now."""
    row = entry.row("SELECT merge_users(%s, %s) AS did", (winner, loser))
    return None if row is None or row.did is None else [UUID(one["id"]) for one in row.did]


@contextmanager
def held(lanes: Lanes, users: Sequence[UUID], *, wait_s: float = HOLD_WAIT_S) -> Iterator[dict[UUID, Lease]]:
    """Hold users' lanes, in the order of their ids. Raise LaneBusy when a turn goes on for longer than `wait_s`."""
    leases = {user: Lease(user_id=user, token=f"operator:{uuid4()}", fence=0) for user in sorted(users)}
    ends = time.monotonic() + wait_s
    try:
        while not all(lanes.hold(user, lease.token, HOLD_S) for user, lease in leases.items()):
            if time.monotonic() > ends:
                raise LaneBusy("a turn of one of the users has not ended: try again")
            time.sleep(LOOK_EVERY_S)
        yield leases
    finally:
        for lease in leases.values():
            lanes.park(lease, 0)


def hold_on(lanes: Lanes, leases: Mapping[UUID, Lease]) -> None:
    """Hold lanes for HOLD_S more. Raise LaneBusy where a worker has one by now: too much time has gone by."""
    if not all(lanes.hold(user, lease.token, HOLD_S) for user, lease in leases.items()):
        raise LaneBusy("a turn of one of the users has begun: try again")
