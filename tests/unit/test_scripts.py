"""How scripts are asked: what is an outage, and what is asked again."""

from collections.abc import Callable

import fakeredis
import pytest
import redis

from onelane.errors import LanesUnavailable
from onelane.lanes.scripts import SCRIPTS, Scripts


@pytest.fixture
def scripts() -> Scripts:
    return Scripts(fakeredis.FakeRedis(), SCRIPTS)


def test_a_server_that_does_not_know_the_scripts_is_taught_them(scripts: Scripts) -> None:
    for _ in range(2):
        assert scripts.run_many([("pause", ["nobody"]), ("requeued", ["nobody"]), ("pause", ["nobody"])]) == [0, [], 0]
        scripts.client.script_flush()


@pytest.mark.parametrize(
    "text",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "Error running script (call to f_1): @user_script:9: -OOM command not allowed when used memory > 'maxmemory'.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "READONLY You can't write against a read only replica.",
        "BUSY Redis is busy running a script.",
    ],
)
def test_a_redis_that_refuses_is_an_outage(scripts: Scripts, text: str) -> None:
    with pytest.raises(LanesUnavailable):
        scripts.ask(_raising(redis.exceptions.ResponseError(text)))


def test_a_mistake_of_ours_is_no_outage(scripts: Scripts) -> None:
    error = redis.exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    with pytest.raises(redis.exceptions.ResponseError):
        scripts.ask(_raising(error))


@pytest.mark.parametrize(
    ("error", "calls"), [(redis.exceptions.ConnectionError, 2), (redis.exceptions.TimeoutError, 1)]
)
def test_a_broken_connection_is_tried_again_and_a_late_answer_is_not_waited_for_twice(
    scripts: Scripts, error: type[Exception], calls: int
) -> None:
    asked = []

    def ask() -> None:
        asked.append(1)
        raise error

    with pytest.raises(LanesUnavailable):
        scripts.ask(ask)
    assert len(asked) == calls


def test_a_pool_without_a_free_connection_is_not_waited_for_twice(scripts: Scripts) -> None:
    scripts.client.connection_pool = redis.BlockingConnectionPool(max_connections=1, timeout=0.01)
    pool = scripts.client.connection_pool
    pool.pool.get()  # the only one
    asked = []

    def ask() -> object:
        asked.append(1)
        return pool.get_connection()

    with pytest.raises(LanesUnavailable):
        scripts.ask(ask)
    assert len(asked) == 1


def _raising(error: Exception) -> Callable[[], object]:
    def call() -> None:
        raise error

    return call
