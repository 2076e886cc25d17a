"""What monitors and autoscalers read: GET /metrics (Prometheus text format 0.0.4) and GET /autoscale.json.

No label names a user or a lane: there are as many series as this file and `worker/onelane/telemetry/numbers.py` list.
"""

import hmac
from collections.abc import Iterator
from functools import cache
from math import ceil

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from pydantic import SecretStr

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.db import Database
from onelane.errors import LanesUnavailable, StoreUnavailable
from onelane.model import JsonObject
from onelane.operations.reply_views import IN_THE_OUTBOX, Overview, overview
from onelane.operations.snapshot import LaneState, Snapshot, Survey
from onelane.telemetry.counters import Counter, Histogram
from onelane.telemetry.numbers import COUNTED

LANES = "onelane_lanes"
OLDEST_WAIT = "onelane_oldest_wait_seconds"
WORKERS = "onelane_workers"
WAITING = "onelane_replies_waiting"
OLDEST_REPLY = "onelane_replies_oldest_wait_seconds"
GIVEN_UP = "onelane_replies_given_up"
BROKEN = "onelane_channels_broken"
REPLIES_WITHIN_S = 2.0
"""What Postgres may take for its part."""
GAUGES = {
    LANES: "Lanes by state. parked: waiting for a retry, for the rate limit, or for what a handler needs.",
    OLDEST_WAIT: "How long the lane that waits longest has been due.",
    WORKERS: "Worker processes whose last heartbeat is recent.",
    WAITING: "Replies that are not sent yet, by state. unknown: they may have arrived.",
    OLDEST_REPLY: "How long the reply that waits longest has been committed.",
    GIVEN_UP: "Replies of which nobody will know whether they arrived, until an operator settles them.",
    BROKEN: "Channels that send nothing, because their provider refuses everything.",
}


def blueprint(services: Services) -> Blueprint:
    """Serve both, to those who send METRICS_TOKEN. The caller mounts this only with a token, or in development."""
    settings = services.settings
    pages = Blueprint("metrics", __name__)

    @cache
    def survey() -> Survey:
        return Survey(services.lanes)

    @pages.before_request
    def check_token() -> ResponseReturnValue | None:
        if settings.metrics_token is None or _has_token(settings.metrics_token):
            return None
        return jsonify(error="the token is missing or wrong"), 401, {"WWW-Authenticate": "Bearer"}

    @pages.get("/metrics")
    def metrics() -> ResponseReturnValue:
        text = generate_latest(_Numbers(*survey().numbers_and_snapshot(), _replies(services.database)))
        return Response(text, content_type=CONTENT_TYPE_PLAIN_0_0_4)

    @pages.get("/autoscale.json")
    def autoscale() -> ResponseReturnValue:
        return jsonify(suggestion(settings, survey().snapshot()))

    pages.register_error_handler(LanesUnavailable, _lanes_unavailable)
    return pages


def suggestion(settings: Settings, lanes: Snapshot) -> JsonObject:
    """Suggest as many workers as have a slot for every lane that is due or leased, between the two bounds.

    Parked and paused lanes need no slot until they are due. A slot that hangs in a handler is a leased lane.
    """
    wanted = ceil((lanes.due + lanes.leased) / settings.worker_slots)
    at_least = max(wanted, settings.autoscale_workers_min)
    return {
        "lanes_due": lanes.due,
        "lanes_leased": lanes.leased,
        "oldest_wait_s": lanes.oldest_wait_s,
        "workers": lanes.workers_alive,
        "slots": lanes.workers_alive * settings.worker_slots,
        "suggested_workers": min(at_least, settings.autoscale_workers_max),
    }


class _Numbers(Collector):
    """All numbers of one instant, as a collector of the library."""

    def __init__(self, numbers: dict[str, int], lanes: Snapshot, replies: Overview | None) -> None:
        self._numbers = numbers
        self._lanes = lanes
        self._replies = replies

    def collect(self) -> Iterator[Metric]:
        for family in COUNTED:
            yield _counter(family, self._numbers) if isinstance(family, Counter) else _histogram(family, self._numbers)
        yield from _gauges(self._lanes)
        if self._replies is not None:
            yield from _gauges_of_replies(self._replies)


def _counter(family: Counter, numbers: dict[str, int]) -> Metric:
    metric = CounterMetricFamily(family.name, family.help_text, labels=[family.label] if family.label else [])
    for value, number in family.read(numbers).items():
        metric.add_metric([value] if family.label else [], number)
    return metric


def _histogram(family: Histogram, numbers: dict[str, int]) -> Metric:
    buckets, total_s = family.read(numbers)
    return HistogramMetricFamily(family.name, family.help_text, buckets=buckets, sum_value=total_s)


def _gauges(lanes: Snapshot) -> Iterator[Metric]:
    states = GaugeMetricFamily(LANES, GAUGES[LANES], labels=["state"])
    for state in LaneState:
        states.add_metric([state], getattr(lanes, state))
    yield states
    yield GaugeMetricFamily(OLDEST_WAIT, GAUGES[OLDEST_WAIT], value=lanes.oldest_wait_s)
    yield GaugeMetricFamily(WORKERS, GAUGES[WORKERS], value=lanes.workers_alive)


def _gauges_of_replies(replies: Overview) -> Iterator[Metric]:
    states = GaugeMetricFamily(WAITING, GAUGES[WAITING], labels=["state"])
    for state in IN_THE_OUTBOX:
        states.add_metric([state], getattr(replies, state))
    yield states
    yield GaugeMetricFamily(OLDEST_REPLY, GAUGES[OLDEST_REPLY], value=replies.oldest_wait_s)
    yield GaugeMetricFamily(GIVEN_UP, GAUGES[GIVEN_UP], value=replies.given_up)
    yield GaugeMetricFamily(BROKEN, GAUGES[BROKEN], value=len(replies.broken))


def _replies(database: Database) -> Overview | None:
    """Count the replies; with Postgres away the other numbers are shown without them."""
    try:
        return overview(database, within_s=REPLIES_WITHIN_S)
    except StoreUnavailable:
        return None


def _has_token(token: SecretStr) -> bool:
    """Compare in constant time; compare_digest raises on non-ASCII strings, so compare bytes."""
    given = request.headers.get("Authorization", "").encode("latin-1", errors="replace")
    return hmac.compare_digest(given, b"Bearer " + token.get_secret_value().encode())


def _lanes_unavailable(_error: LanesUnavailable) -> ResponseReturnValue:
    return jsonify(error="Redis is unavailable, and the numbers are kept there"), 503
