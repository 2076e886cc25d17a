"""Counting: cheap, exact over threads, kept while Redis is away, added once whatever happens to the reply."""

import threading
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
from structlog.testing import capture_logs

from onelane import keys
from onelane.errors import LanesUnavailable
from onelane.lanes.lanes import BATCH_TTL_S, Lanes
from onelane.processes.upload import Upload
from onelane.telemetry import numbers as module
from onelane.telemetry.counters import Counter, Counters, Histogram, numbers_in
from onelane.telemetry.numbers import COUNTED
from tests.conftest import eventually

SAYS = "What it counts."


class Flaky:
    """A way to Redis that loses requests or replies on demand."""

    def __init__(self, client: Any) -> None:
        self._lanes = Lanes(client)
        self.loses: str | None = None

    def send(self, process: str, number: int, batch: dict[str, int]) -> None:
        if self.loses == "request":
            raise LanesUnavailable("gone")
        self._lanes.add_numbers(process, number, batch)
        if self.loses == "reply":
            raise LanesUnavailable("lost")


@pytest.fixture
def client() -> Iterator[Any]:
    with fakeredis.FakeRedis(version=(6, 2)) as client:
        yield client


class Process:
    """What one process counts, sent only when the test says so."""

    def __init__(self, way: Flaky) -> None:
        self.counters = Counters()
        self.upload = Upload(way.send, source=self.counters)
        self.flush = self.upload.flush


def test_what_is_counted_meanwhile_is_sent_the_next_time(client: Any) -> None:
    """A server that is far away takes longer for a batch than it takes to count more."""
    counters, way, sent = Counters(), Flaky(client), list[int]()
    turns = Counter("turns", SAYS, "outcome", ("committed", "dead"), into=counters)

    def send(process: str, number: int, batch: dict[str, int]) -> None:
        sent.append(number)
        if len(sent) < 10:
            turns.count("dead")
        way.send(process, number, batch)

    upload = Upload(send, source=counters)
    turns.count("committed")
    assert upload.flush()
    assert len(sent) == 1
    assert counters.take()


def test_what_two_processes_counted_is_added_up(client: Any) -> None:
    for _ in range(2):
        counters = Process(Flaky(client))
        turns = Counter("turns", SAYS, "outcome", ("committed", "dead"), into=counters.counters)
        turns.count("committed", 3)
        turns.count("dead")
        assert counters.flush()
        turns.count("dead")
        assert counters.flush()
    assert turns.read(numbers_in(client.hgetall(keys.NUMBERS))) == {"committed": 6, "dead": 4, "other": 0}


def test_a_label_takes_no_value_but_its_own(client: Any) -> None:
    counters = Process(Flaky(client))
    turns = Counter("turns", SAYS, "outcome", ("committed",), into=counters.counters)
    for value in ("+33612345678", "", "committed "):
        turns.count(value)
    counters.flush()
    assert turns.read(numbers_in(client.hgetall(keys.NUMBERS))) == {"committed": 0, "other": 3}


def test_threads_lose_no_count(client: Any) -> None:
    counters = Process(Flaky(client))
    turns = Counter("turns", SAYS, into=counters.counters)

    def count() -> None:
        for nr in range(2_000):
            turns.count()
            if nr % 100 == 0:
                counters.flush()

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters.flush()
    assert turns.read(numbers_in(client.hgetall(keys.NUMBERS))) == {"": 16_000}


@pytest.mark.parametrize("loses", ["request", "reply"])
def test_a_lost_request_or_reply_counts_once(client: Any, loses: str) -> None:
    flaky = Flaky(client)
    counters = Process(flaky)
    turns = Counter("turns", SAYS, into=counters.counters)
    turns.count("", 5)
    flaky.loses = loses
    with capture_logs() as logs:
        for _ in range(3):
            assert not counters.flush()
            turns.count()
    assert [line["event"] for line in logs] == ["numbers_postponed"]
    flaky.loses = None
    assert counters.flush()
    assert turns.read(numbers_in(client.hgetall(keys.NUMBERS))) == {"": 8}


def test_an_outage_keeps_as_many_fields_as_there_are(client: Any) -> None:
    flaky = Flaky(client)
    counters = Process(flaky)
    flaky.loses = "request"
    turns = Counter("turns", SAYS, "outcome", ("committed", "dead"), into=counters.counters)
    for nr in range(1_000):
        turns.count(str(nr))
        turns.count("dead")
        counters.flush()
    assert len(counters.counters.take()) + len(counters.upload._batch) <= 4


def test_what_was_counted_before_the_end_is_sent(client: Any) -> None:
    counters = Process(Flaky(client))
    turns = Counter("turns", SAYS, into=counters.counters)
    counters.upload.start()
    turns.count()
    counters.upload.close()
    assert turns.read(numbers_in(client.hgetall(keys.NUMBERS))) == {"": 1}


def test_what_a_process_leaves_behind_goes_away(client: Any) -> None:
    counters = Process(Flaky(client))
    Counter("turns", SAYS, into=counters.counters).count()
    counters.flush()
    [key] = client.keys("counted:*")
    assert 0 < client.pttl(key) <= BATCH_TTL_S * 1000
    assert client.ttl("numbers") == -1


def test_nothing_counted_asks_redis_nothing(client: Any) -> None:
    counters = Process(Flaky(client))
    assert counters.flush()
    assert client.keys("*") == []


def test_it_is_sent_again_and_again_also_after_an_error_that_nobody_expected(client: Any) -> None:
    way, has_failed = Flaky(client), threading.Event()

    def send(process: str, number: int, batch: dict[str, int]) -> None:
        if not has_failed.is_set():
            has_failed.set()
            raise AttributeError("'NoneType' object has no attribute 'readline'")
        way.send(process, number, batch)

    counters = Counters()
    turns = Counter("turns", SAYS, into=counters)
    turns.count()
    upload = Upload(send, source=counters, every_s=0.01)
    upload.start()
    eventually(lambda: turns.read(numbers_in(client.hgetall(keys.NUMBERS))) == {"": 1})
    upload.close()
    assert has_failed.is_set()


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, "0.1"), (-3, "0.1"), (0.1, "0.1"), (0.11, "1"), (1.5, "+Inf"), (1e6, "+Inf")]
)
def test_a_time_falls_into_the_first_bucket_that_holds_it(client: Any, seconds: float, bucket: str) -> None:
    counters = Process(Flaky(client))
    took = Histogram("took", SAYS, (0.1, 1), into=counters.counters)
    took.observe(seconds)
    counters.flush()
    buckets, total_s = took.read(numbers_in(client.hgetall(keys.NUMBERS)))
    assert next(bound for bound, number in buckets if number) == bucket
    assert buckets[-1] == ("+Inf", 1)
    assert total_s == max(seconds, 0)


def test_every_counter_of_the_code_is_listed() -> None:
    defined = [one for one in vars(module).values() if isinstance(one, Counter | Histogram)]
    assert defined == list(COUNTED)
    assert len({one.name for one in COUNTED}) == len(COUNTED)
