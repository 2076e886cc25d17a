"""All that an operator sees of one user: lanes, sessions side by side, and in each what happened, in order."""

from typing import Final
from uuid import UUID

from onelane.errors import LanesUnavailable
from onelane.lanes.lanes import Lanes
from onelane.model import Value
from onelane.operations import anomalies
from onelane.operations.anomalies import Anomaly
from onelane.operations.identity import Identity, identity_of
from onelane.operations.lane import LaneView, lane_of, view_lane
from onelane.operations.snapshot import Lane
from onelane.operations.timeline import Span, Told, timeline_of
from onelane.operations.users import find_user
from onelane.postgres.db import Database

WAITING_MAX: Final = 50
LINES_MAX: Final = 300


class Block(Value):
    """A session, and its lines in order."""

    session: Span
    lines: tuple[Told, ...]
    overlaps: bool
    """Another session of the user begins before this one has ended."""


class Conversation(Value):
    """One user."""

    view: LaneView
    out_lane: Lane | None
    identity: Identity
    blocks: tuple[Block, ...]
    """Oldest first."""
    waiting: tuple[Told, ...]
    """Lines that are in no session yet, or in none at all."""
    anomalies: tuple[Anomaly, ...]

    @property
    def open(self) -> Span | None:
        """The open session; the newest, should there be several."""
        return next((one.session for one in reversed(self.blocks) if one.session.status != "ended"), None)


def conversation_of(database: Database, lanes: Lanes, out_lanes: Lanes, user_id: UUID) -> Conversation | None:
    """Read one user from both servers; None when there is no such user."""
    user, identity = find_user(database, user_id), identity_of(database, user_id)
    if user is None or identity is None:
        return None
    told = timeline_of(database, user_id, LINES_MAX)
    return Conversation(
        view=view_lane(database, lanes, user, WAITING_MAX),
        out_lane=_unless_away(out_lanes, user_id),
        identity=identity,
        blocks=tuple(
            Block(
                session=span,
                lines=tuple(line for line in told.lines if line.session_id == span.id),
                overlaps=any(_is_during(span, other) for other in told.sessions if other.id != span.id),
            )
            for span in told.sessions
        ),
        waiting=tuple(line for line in told.lines if line.session_id is None),
        anomalies=anomalies.of_user(database, user_id),
    )


def _unless_away(lanes: Lanes, user_id: UUID) -> Lane | None:
    try:
        return lane_of(lanes, user_id)
    except LanesUnavailable:
        return None


def _is_during(one: Span, other: Span) -> bool:
    """Whether two sessions last at the same time."""
    return (other.ended_at is None or one.started_at < other.ended_at) and (
        one.ended_at is None or other.started_at < one.ended_at
    )
