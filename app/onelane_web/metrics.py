"""What monitors and autoscalers read: GET /metrics (Prometheus text format 0.0.4) and GET /autoscale.json.

No label names a user or a lane: there are as many series as this file and `worker/onelane/telemetry/numbers.py` list.
"""

import hmac
from collections.abc import Iterator
from functools import cache
from math import ceil
from typing import NamedTuple

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from pydantic import SecretStr

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.errors import LanesUnavailable, StoreUnavailable
from onelane.inbox.fullness import Fullness
from onelane.model import JsonObject
from onelane.operations.reply_views import IN_THE_OUTBOX, Overview, overview
from onelane.operations.snapshot import LaneState, Snapshot, Survey
from onelane.postgres.db import Database
from onelane.telemetry.counters import Counter, Histogram
from onelane.telemetry.numbers import COUNTED

LANES = "onelane_lanes"
OLDEST_WAIT = "onelane_oldest_wait_seconds"
WORKERS = "onelane_workers"
WAITING = "onelane_replies_waiting"
OLDEST_REPLY = "onelane_replies_oldest_wait_seconds"
GIVEN_UP = "onelane_replies_given_up"
BROKEN = "onelane_channels_broken"
IN_INBOX = "onelane_inbox_messages"
INBOX_MAX = "onelane_inbox_max_messages"
REPLIES_WITHIN_S = 2.0
"""What Postgres may take for its part."""
GAUGES = {
    LANES: "Lanes by kind (in: turns, out: replies) and state. collecting: waiting for more messages; parked: for a "
    "retry, a limit, or what is away.",
    OLDEST_WAIT: "How long the lane of a kind that waits longest has been due.",
    WORKERS: "Worker processes whose last heartbeat is recent, by the kinds of lanes that they work.",
    WAITING: "Replies that are not sent yet, by state. unknown: they may have arrived.",
    OLDEST_REPLY: "How long the reply that waits longest has been committed.",
    GIVEN_UP: "Replies of which nobody will know whether they arrived, until an operator settles them.",
    BROKEN: "Channels that send nothing, because their provider refuses everything.",
    IN_INBOX: "Messages that wait for their turn, as this web process last counted them, at most BACKLOG_TOTAL_MAX.",
    INBOX_MAX: "BACKLOG_TOTAL_MAX: when so many wait, webhooks of messages are refused with 503.",
}
LABELS = {LANES: ("kind", "state"), OLDEST_WAIT: ("kind",), WORKERS: ("kind",), WAITING: ("state",)}
"""Of gauges."""


def blueprint(services: Services, fullness: Fullness) -> Blueprint:
    """Serve both, to those who send METRICS_TOKEN. The caller mounts this only with a token, or in development."""
    settings = services.settings
    pages = Blueprint("metrics", __name__)

    @cache
    def surveys() -> tuple[Survey, Survey]:
        return Survey(services.lanes), Survey(services.out_lanes)

    def read() -> tuple[dict[str, int], Lanes]:
        turns, replies = surveys()
        numbers, of_turns = turns.numbers_and_snapshot()
        return numbers, Lanes(of_turns, replies.snapshot())

    @pages.before_request
    def check_token() -> ResponseReturnValue | None:
        if settings.metrics_token is None or _has_token(settings.metrics_token):
            return None
        return jsonify(error="the token is missing or wrong"), 401, {"WWW-Authenticate": "Bearer"}

    @pages.get("/metrics")
    def metrics() -> ResponseReturnValue:
        text = generate_latest(_Numbers(*read(), _replies(services.database), fullness))
        return Response(text, content_type=CONTENT_TYPE_PLAIN_0_0_4)

    @pages.get("/autoscale.json")
    def autoscale() -> ResponseReturnValue:
        return jsonify(suggestion(settings, read()[1]))

    pages.register_error_handler(LanesUnavailable, _lanes_unavailable)
    return pages


class Lanes(NamedTuple):
    """The lanes of both kinds at one instant."""

    turns: Snapshot
    replies: Snapshot


def suggestion(settings: Settings, lanes: Lanes) -> JsonObject:
    """Suggest as many workers as have a slot for every lane of either kind that is due or leased, between the bounds.

    `kinds` says the same of each by itself, for workers of one kind alone.
    Parked and paused lanes need no slot until they are due. A slot that hangs in a handler is a leased lane.
    """
    turns, replies = lanes
    slots = {keys.IN: settings.worker_slots, keys.OUT: settings.send_slots}
    kinds = {
        kind: {
            "oldest_wait_s": one.oldest_wait_s,
            "workers": turns.workers_of(kind),
            "suggested_workers": _suggested(settings, one, slots[kind]),
        }
        for kind, one in zip(keys.KINDS, lanes, strict=True)
    }
    return {
        "lanes_due": turns.due,
        "lanes_leased": turns.leased,
        "replies_due": replies.due,
        "replies_leased": replies.leased,
        "oldest_wait_s": max(turns.oldest_wait_s, replies.oldest_wait_s),
        "workers": turns.workers_alive,
        "slots": turns.workers_alive * settings.worker_slots,
        "suggested_workers": max(one["suggested_workers"] for one in kinds.values()),
        "kinds": kinds,
    }


def _suggested(settings: Settings, lanes: Snapshot, slots: int) -> int:
    wanted = ceil((lanes.due + lanes.leased) / slots)
    return min(max(wanted, settings.autoscale_workers_min), settings.autoscale_workers_max)


class _Numbers(Collector):
    """All numbers of one instant, as a collector of the library."""

    def __init__(self, numbers: dict[str, int], lanes: Lanes, replies: Overview | None, fullness: Fullness) -> None:
        self._numbers = numbers
        self._lanes = lanes
        self._replies = replies
        self._fullness = fullness

    def collect(self) -> Iterator[Metric]:
        for family in COUNTED:
            yield _counter(family, self._numbers) if isinstance(family, Counter) else _histogram(family, self._numbers)
        yield from _gauges(self._lanes)
        if self._replies is not None:
            yield from _gauges_of_replies(self._replies)
        if self._fullness.waiting is not None:
            yield GaugeMetricFamily(IN_INBOX, GAUGES[IN_INBOX], value=self._fullness.waiting)
            yield GaugeMetricFamily(INBOX_MAX, GAUGES[INBOX_MAX], value=self._fullness.most)


def _counter(family: Counter, numbers: dict[str, int]) -> Metric:
    metric = CounterMetricFamily(family.name, family.help_text, labels=[family.label] if family.label else [])
    for value, number in family.read(numbers).items():
        metric.add_metric([value] if family.label else [], number)
    return metric


def _histogram(family: Histogram, numbers: dict[str, int]) -> Metric:
    buckets, total_s = family.read(numbers)
    return HistogramMetricFamily(family.name, family.help_text, buckets=buckets, sum_value=total_s)


def _gauges(lanes: Lanes) -> Iterator[Metric]:
    states = GaugeMetricFamily(LANES, GAUGES[LANES], labels=LABELS[LANES])
    waits = GaugeMetricFamily(OLDEST_WAIT, GAUGES[OLDEST_WAIT], labels=LABELS[OLDEST_WAIT])
    workers = GaugeMetricFamily(WORKERS, GAUGES[WORKERS], labels=LABELS[WORKERS])
    for kind, snapshot in zip(keys.KINDS, lanes, strict=True):
        for state in LaneState:
            states.add_metric([kind, state], getattr(snapshot, state))
        waits.add_metric([kind], snapshot.oldest_wait_s)
        workers.add_metric([kind], lanes.turns.workers_of(kind))
    yield from (states, waits, workers)


def _gauges_of_replies(replies: Overview) -> Iterator[Metric]:
    states = GaugeMetricFamily(WAITING, GAUGES[WAITING], labels=LABELS[WAITING])
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
