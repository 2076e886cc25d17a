"""The whole service at a glance, as far as its servers answer."""

from collections.abc import Callable
from typing import Final, TypeVar

from onelane.errors import LanesUnavailable, StoreUnavailable
from onelane.lanes.lanes import Lanes
from onelane.model import Value
from onelane.operations import anomalies, reply_views, trends
from onelane.operations.anomalies import Looked
from onelane.operations.reply_views import Overview
from onelane.operations.snapshot import Backlog, Snapshot, Survey, backlog_of
from onelane.operations.trends import Trends
from onelane.postgres.db import Database

LANES_SHOWN: Final = 10
"""Of each state and kind."""
WITHIN_S: Final = 1.0
ANOMALIES_S: Final = 0.06
ANOMALY_WINDOWS: Final = ("5 minutes", "1 hour", "24 hours")
QUARANTINE_MAX: Final = 10_000
QUARANTINED: Final = "SELECT count(*) AS kept FROM (SELECT FROM quarantined_payloads LIMIT %s) _"

Part = TypeVar("Part")


class Glance(Value):
    """What is known of the service now; None: the server that knows it is away."""

    turns: Snapshot | None
    replies: Snapshot | None
    trends: Trends | None
    backlog: Backlog | None
    outbox: Overview | None
    quarantined: int | None
    anomalies: Looked | None


def glance(database: Database, lanes: Lanes, out_lanes: Lanes) -> Glance:
    """Ask both servers."""
    return Glance(
        turns=_unless_away(lambda: Survey(lanes).snapshot(LANES_SHOWN)),
        replies=_unless_away(lambda: Survey(out_lanes).snapshot(LANES_SHOWN)),
        trends=_unless_away(lambda: trends.last_hour(lanes)),
        backlog=_unless_away(lambda: backlog_of(database)),
        outbox=_unless_away(lambda: reply_views.overview(database, within_s=WITHIN_S)),
        quarantined=_unless_away(lambda: _quarantined(database)),
        anomalies=_unless_away(lambda: anomalies.look_back(database, ANOMALIES_S, ANOMALY_WINDOWS)),
    )


def _unless_away(ask: Callable[[], Part]) -> Part | None:
    try:
        return ask()
    except (LanesUnavailable, StoreUnavailable):
        return None


def _quarantined(database: Database) -> int:
    row = database.row(QUARANTINED, (QUARANTINE_MAX,), within_s=WITHIN_S)
    return row.kept if row else 0
