"""The last hour, minute by minute: how many messages and replies, and how long people waited.

The numbers only grow. At the first count of each minute Redis keeps what they were (`count.lua`), so a minute's own
is the difference to the next one kept; while nothing was counted, nothing happened.
"""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from onelane import keys
from onelane.lanes.lanes import Lanes
from onelane.model import Value
from onelane.telemetry.counters import numbers_in
from onelane.telemetry.numbers import ACCEPTED, END_TO_END_SECONDS, REPLIES

MINUTES: Final = 60
SLOWEST: Final = 0.95
"""Which part of the turns is to be at least as fast as is said."""
ARRIVED: Final = ("sent", "delivered", "read")

Numbers = Mapping[str, int]


class Trends(Value):
    """A number for each of the last MINUTES minutes, the present one last."""

    messages: tuple[float, ...]
    replies: tuple[float, ...]
    wait_s: tuple[float, ...]
    """From accept to commit, of the slowest but five in a hundred; 0 where there was none."""


def last_hour(lanes: Lanes) -> Trends:
    """Read the last hour. Raise LanesUnavailable."""
    kept, numbers, time = lanes.scripts.ask(lambda: _read(lanes))
    this_minute = int(time[0]) // 60
    by_minute = dict(map(_kept, kept)) | {this_minute + 1: numbers_in(numbers)}
    minutes = sorted(by_minute)
    went = {minute: _difference(by_minute[minute], by_minute[later]) for minute, later in pairwise(minutes)}
    hour = [went.get(minute, {}) for minute in range(this_minute - MINUTES + 1, this_minute + 1)]
    return Trends(
        messages=tuple(ACCEPTED.read(one)["message"] for one in hour),
        replies=tuple(sum(REPLIES.read(one)[state] for state in ARRIVED) for one in hour),
        wait_s=tuple(map(_slow_s, hour)),
    )


def _read(lanes: Lanes) -> list[object]:
    with lanes.client.pipeline(transaction=False) as pipeline:
        pipeline.lrange(keys.MINUTES, 0, MINUTES)
        pipeline.hgetall(keys.NUMBERS)
        pipeline.time()
        answers: list[object] = pipeline.execute()
    return answers


def _kept(entry: bytes) -> tuple[int, Numbers]:
    minute, _, fields = entry.partition(b" ")
    return int(minute), {name: int(number) for name, number in json.loads(fields).items()}


def _difference(before: Numbers, after: Numbers) -> Numbers:
    """Subtract; numbers that have become smaller were lost meanwhile, and begin anew."""
    return {name: now - before.get(name, 0) if now >= before.get(name, 0) else now for name, now in after.items()}


def _slow_s(numbers: Numbers) -> float:
    buckets, _ = END_TO_END_SECONDS.read(numbers)
    total = buckets[-1][1]
    bounds = [float(bound) for bound, within in buckets if total and within >= SLOWEST * total]
    finite = [bound for bound in bounds if bound != float("inf")]
    return finite[0] if finite else (float(buckets[-2][0]) if bounds else 0.0)
