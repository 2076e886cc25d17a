"""Counting: cheap, exact over threads, kept while Redis is away, added once whatever happens to the reply."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
import redis
from structlog.testing import capture_logs

from worker import counters as module
from worker import keys
from worker.counters import BATCH_TTL_S, COUNTED, Counter, Counters, Histogram, numbers_in

SAYS = "What it counts."


class Flaky:
    """A Redis that loses requests or replies on demand."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.loses: str | None = None

    def register_script(self, text: str) -> Any:
        script = self.client.register_script(text)

        def call(**given: Any) -> Any:
            if self.loses == "request":
                raise redis.exceptions.ConnectionError("gone")
            answer = script(**given)
            if self.loses == "reply":
                raise redis.exceptions.TimeoutError("lost")
            return answer

        return call


@pytest.fixture
def client() -> Iterator[Any]:
    with fakeredis.FakeRedis(version=(6, 2)) as client:
        yield client


def counters_of(client: Any) -> Counters:
    """Make counters that hand over only when told."""
    counters = Counters()
    counters.start(client, every_s=3600)
    return counters


def test_what_two_processes_counted_is_added_up(client: Any) -> None:
    for _ in range(2):
        counters = counters_of(client)
        turns = Counter("turns", SAYS, "outcome", ("committed", "dead"), into=counters)
        turns.count("committed", 3)
        turns.count("dead")
        assert counters.flush()
        turns.count("dead")
        assert counters.flush()
    assert turns.read(numbers_in(client.hgetall(keys.NUMBERS))) == {"committed": 6, "dead": 4, "other": 0}


def test_a_label_takes_no_value_but_its_own(client: Any) -> None:
    counters = counters_of(client)
    turns = Counter("turns", SAYS, "outcome", ("committed",), into=counters)
    for value in ("+33612345678", "", "committed "):
        turns.count(value)
    counters.flush()
    assert turns.read(numbers_in(client.hgetall(keys.NUMBERS))) == {"committed": 0, "other": 3}


def test_threads_lose_no_count(client: Any) -> None:
    counters = counters_of(client)
    turns = Counter("turns", SAYS, into=counters)

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
    counters = counters_of(flaky)
    turns = Counter("turns", SAYS, into=counters)
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
    counters = counters_of(flaky)
    flaky.loses = "request"
    turns = Counter("turns", SAYS, "outcome", ("committed", "dead"), into=counters)
    for nr in range(1_000):
        turns.count(str(nr))
        turns.count("dead")
        counters.flush()
    assert len(counters._gathered) + len(counters._batch) <= 4


def test_counting_before_there_is_a_redis_is_no_error() -> None:
    counters = Counters()
    Counter("turns", SAYS, into=counters).count()
    assert not counters.flush()


def test_a_client_that_is_closed_is_not_used_again(client: Any) -> None:
    counters = counters_of(client)
    turns = Counter("turns", SAYS, into=counters)
    turns.count()
    counters.stop(client)
    assert turns.read(numbers_in(client.hgetall(keys.NUMBERS))) == {"": 1}
    turns.count()
    assert not counters.flush()
    counters.start(client, every_s=3600)
    assert counters.flush()
    assert turns.read(numbers_in(client.hgetall(keys.NUMBERS))) == {"": 2}


def test_what_a_process_leaves_behind_goes_away(client: Any) -> None:
    counters = counters_of(client)
    Counter("turns", SAYS, into=counters).count()
    counters.flush()
    [key] = client.keys("counted:*")
    assert 0 < client.pttl(key) <= BATCH_TTL_S * 1000
    assert client.ttl("numbers") == -1


def test_nothing_counted_asks_redis_nothing(client: Any) -> None:
    counters = counters_of(client)
    assert counters.flush()
    assert client.keys("*") == []


def test_the_thread_hands_over_by_itself(client: Any) -> None:
    counters = Counters()
    turns = Counter("turns", SAYS, into=counters)
    turns.count()
    counters.start(client, every_s=0.01)
    ends = time.monotonic() + 10
    while turns.read(numbers_in(client.hgetall(keys.NUMBERS))) != {"": 1}:
        assert time.monotonic() < ends


def test_the_thread_outlives_a_connection_that_is_closed_under_it(client: Any, monkeypatch: Any) -> None:
    register_script, was_closed = client.register_script, threading.Event()

    def closed_once(text: str) -> Any:
        if not was_closed.is_set():
            was_closed.set()
            raise AttributeError("'NoneType' object has no attribute 'readline'")
        return register_script(text)

    monkeypatch.setattr(client, "register_script", closed_once)
    test_the_thread_hands_over_by_itself(client)
    assert was_closed.is_set()


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, "0.1"), (-3, "0.1"), (0.1, "0.1"), (0.11, "1"), (1.5, "+Inf"), (1e6, "+Inf")]
)
def test_a_time_falls_into_the_first_bucket_that_holds_it(client: Any, seconds: float, bucket: str) -> None:
    counters = counters_of(client)
    took = Histogram("took", SAYS, (0.1, 1), into=counters)
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


def test_counting_costs_less_than_two_microseconds() -> None:
    counters = Counters()
    turns = Counter("turns", SAYS, "outcome", ("committed",), into=counters)
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(20_000):
            turns.count("committed")
        rounds.append((time.perf_counter() - began) / 20_000)
    assert min(rounds) < 2e-6
