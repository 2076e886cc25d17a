"""What is counted: cheaply in the process, exactly in Redis.

Counting adds to a dictionary and asks nobody. Once a second a thread hands what has gathered to Redis, where one hash
holds the numbers of all processes, the ended ones too.

A batch whose reply was lost is sent again as it was, with its number, and the script adds a number once: nothing is
counted twice, unless Redis was away for longer than it remembers the number (BATCH_TTL_S; then at most that one batch).
With Redis away what gathers is bounded by the number of fields. Lost are the last second of a process that is killed,
and all numbers when Redis loses its memory: they begin at 0 again, which Prometheus takes for what it is.

No name and no label says anything about a user: there are as many fields as are listed here.
"""

import threading
import weakref
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import uuid4

import redis

from worker import keys
from worker.failure import describe
from worker.telemetry import log

ADD_ONCE: Final = """
-- HLEN first: if the key holds something else, it fails before anything is written. A field that holds no number loses
-- what it was to get; it must not keep the other fields waiting, or have them added twice.
-- ARGV: the numbers' hash, the process's key, the batch's number, ms to remember it, then field, amount, …
local numbers, process, batch, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
redis.call('HLEN', numbers)
if redis.call('GET', process) == batch then return 0 end
redis.call('SET', process, batch, 'PX', ttl)
for i = 5, #ARGV, 2 do redis.pcall('HINCRBY', numbers, ARGV[i], ARGV[i + 1]) end
return 1
"""
FLUSH_S: Final = 1.0
BATCH_TTL_S: Final = 600
OTHER: Final = "other"
MICROSECONDS: Final = 1_000_000


class Counters:
    """What this process has counted and Redis does not have yet."""

    def __init__(self) -> None:
        self._gathered: dict[str, int] = {}
        self._adding = threading.Lock()
        self._batch: dict[str, int] = {}
        """What was sent and not confirmed."""
        self._batch_number = 0
        self._flushing = threading.Lock()
        self._is_postponed = False
        self._process = uuid4().hex
        self._clients: list[weakref.ref[redis.Redis]] = []
        """Who can be handed something, the newest last; they are others', to keep and to close."""
        self._thread: threading.Thread | None = None

    def add(self, field: str, amount: int = 1) -> None:
        """Add to a field."""
        with self._adding:
            self._gathered[field] = self._gathered.get(field, 0) + amount

    def start(self, client: redis.Redis, every_s: float = FLUSH_S) -> None:
        """Hand over to `client` every `every_s` from now on. Of several clients any will do."""
        self._clients.append(weakref.ref(client))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(every_s,), name="counters", daemon=True)
            self._thread.start()

    def stop(self, client: redis.Redis) -> None:
        """Hand everything over, and do not use `client`, which is about to be closed, any more."""
        self.flush()
        with self._flushing:
            self._clients = [one for one in self._clients if one() not in {None, client}]

    def flush(self) -> bool:
        """Hand everything over now; return False when Redis did not take it: then it is kept."""
        with self._flushing:
            client = next((one for ref in reversed(self._clients) if (one := ref())), None)
            if client is None:
                return False
            try:
                while self._has_batch():
                    self._send(client)
            except (redis.exceptions.RedisError, OSError) as error:
                self._note_postponed(error)
                return False
            self._is_postponed = False
            return True

    def _has_batch(self) -> bool:
        """Take what has gathered, unless a batch is still unconfirmed: that goes first, and unchanged."""
        if not self._batch:
            with self._adding:
                self._batch, self._gathered = self._gathered, {}
            self._batch_number += 1
        return bool(self._batch)

    def _send(self, client: redis.Redis) -> None:
        flat = [part for pair in self._batch.items() for part in pair]
        process = keys.counted(self._process)
        client.register_script(ADD_ONCE)(args=[keys.NUMBERS, process, self._batch_number, BATCH_TTL_S * 1000, *flat])
        self._batch = {}

    def _note_postponed(self, error: Exception) -> None:
        """Say so once an outage, not every second."""
        if not self._is_postponed:
            log.warning("numbers_postponed", error=type(error).__name__)
        self._is_postponed = True

    def _run(self, every_s: float) -> None:
        pause = threading.Event()
        while not pause.wait(every_s):
            try:
                self.flush()
            except Exception as error:  # noqa: BLE001 - without this thread nothing would be handed over any more
                log.error("task_failed", failure=describe(error))


counters: Final = Counters()


class Counter:
    """A number that only grows, for each value of one label."""

    def __init__(
        self, name: str, says: str, label: str = "", values: Sequence[str] = ("",), into: Counters = counters
    ) -> None:
        """Take all values that the label can have: any other is counted as `other`."""
        self.name, self.says, self.label = name, says, label
        self._fields = {value: f"{name}:{value}" for value in (*values, *([OTHER] if label else []))}
        self._into = into

    def count(self, value: str = "", amount: int = 1) -> None:
        """Count one, or `amount`."""
        self._into.add(self._fields.get(value) or self._fields[OTHER], amount)

    def read(self, numbers: Mapping[str, int]) -> dict[str, int]:
        """Pick this counter's values out of all numbers."""
        return {value: numbers.get(field, 0) for value, field in self._fields.items()}


class Histogram:
    """How often something took how long."""

    def __init__(self, name: str, says: str, bounds_s: Sequence[float], into: Counters = counters) -> None:
        """Take the buckets' upper bounds, ascending; one without a bound comes after them."""
        self.name, self.says = name, says
        self._bounds_s = tuple(bounds_s)
        self._bounds = (*(f"{bound:g}" for bound in bounds_s), "+Inf")
        self._fields = tuple(f"{name}:{bound}" for bound in self._bounds)
        self._sum = f"{name}:us"
        self._into = into

    def observe(self, seconds: float) -> None:
        """Count one that took `seconds`; a clock that was set back makes no negative ones."""
        seconds = max(seconds, 0.0)
        self._into.add(self._fields[bisect_left(self._bounds_s, seconds)])
        self._into.add(self._sum, int(seconds * MICROSECONDS))

    def read(self, numbers: Mapping[str, int]) -> tuple[list[tuple[str, int]], float]:
        """Pick out (upper bound, how many took at most that) for each bucket, and the sum of seconds."""
        total, buckets = 0, []
        for bound, field in zip(self._bounds, self._fields, strict=True):
            total += numbers.get(field, 0)
            buckets.append((bound, total))
        return buckets, numbers.get(self._sum, 0) / MICROSECONDS


def numbers_in(fields: Mapping[bytes, bytes]) -> dict[str, int]:
    """Read what Redis has under `keys.NUMBERS`: the numbers of all processes."""
    return {field.decode(): int(number) for field, number in fields.items()}


DELIVERIES: Final = Counter(
    "lanekeeper_deliveries",
    "Messages that webhooks brought and Postgres committed, and those it had already.",
    "outcome",
    ("accepted", "duplicate"),
)
REASONS: Final = {
    400: "bad_request",
    401: "bad_signature",
    404: "unknown_channel",
    413: "too_large",
    415: "unsupported",
    429: "backlog_full",
    500: "failed",
    503: "store_unavailable",
}
"""Why a webhook was refused, by the answer's status."""
REFUSALS: Final = Counter(
    "lanekeeper_refusals", "Webhook requests that were refused.", "reason", tuple(REASONS.values())
)
TURNS: Final = Counter(
    "lanekeeper_turns",
    "Turns by outcome. already: done before; fenced: a later lease had written; retry: failed, to be tried again; "
    "dead: failed for the last time; paused: the same, the user waits for an operator; dropped: lost its lease.",
    "outcome",
    ("committed", "already", "fenced", "retry", "dead", "paused", "dropped"),
)
TURN_SECONDS: Final = Histogram(
    "lanekeeper_turn_seconds",
    "From a turn's begin to its commit: the handler, mostly.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
END_TO_END_SECONDS: Final = Histogram(
    "lanekeeper_end_to_end_seconds",
    "From a message's acceptance to its commit, by the clocks of Postgres and of the worker.",
    (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 28800),
)
LEASES_LOST: Final = Counter("lanekeeper_leases_lost", "Leases that ran out or were taken while in use.")
BEGINS_FENCED: Final = Counter("lanekeeper_begins_fenced", "Turns refused at their begin: a later lease had written.")
TAKEOVERS: Final = Counter("lanekeeper_takeovers", "Lanes taken over from a worker that never released them.")
SESSION_CACHE: Final = Counter(
    "lanekeeper_session_cache",
    "What the session id known before a turn was worth. unused: a redriven message keeps its own.",
    "result",
    ("hit", "miss", "stale", "malformed", "unused"),
)
SESSIONS_OPENED: Final = Counter(
    "lanekeeper_sessions_opened",
    "Sessions opened, by how the user's session before ended; first: there was none.",
    "because",
    ("first", "timeout", "end_of_day", "max_age", "user_request", "handler", "operator"),
)
SESSIONS_ENDED: Final = Counter(
    "lanekeeper_sessions_ended",
    "Sessions ended.",
    "reason",
    ("timeout", "end_of_day", "max_age", "user_request", "handler", "operator"),
)
RECONCILED: Final = Counter("lanekeeper_reconciled", "Jobs that Redis had lost and the reconciler put back.")
REDRIVEN: Final = Counter("lanekeeper_redriven", "Dead messages that RQ's own tools put back.")

COUNTED: Final[tuple[Counter | Histogram, ...]] = (
    *(DELIVERIES, REFUSALS, TURNS, TURN_SECONDS, END_TO_END_SECONDS, LEASES_LOST, BEGINS_FENCED, TAKEOVERS),
    *(SESSION_CACHE, SESSIONS_OPENED, SESSIONS_ENDED, RECONCILED, REDRIVEN),
)
"""Everything that is counted; a counter's name gets `_total` in /metrics."""
