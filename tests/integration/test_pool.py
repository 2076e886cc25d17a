"""Connections to Postgres are shared: whoever may make none waits for one that is given back."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from onelane.config import Settings
from onelane.errors import StoreAway
from onelane.postgres.connection import Connection
from onelane.postgres.pool import Pool

CALLERS = 6


def _allowing(settings: Settings, most: int) -> Callable[[float, int], Connection]:
    """Connect as to a server that allows so many connections."""
    made: list[Connection] = []

    def connect(within_s: float, generation: int) -> Connection:
        if len(made) >= most:
            raise psycopg.OperationalError("FATAL: sorry, too many clients already")
        made.append(Connection.open(settings.database_url, within_s, generation))
        return made[-1]

    return connect


def test_a_server_that_allows_fewer_connections_than_the_pool_has_places_is_not_away(settings: Settings) -> None:
    pool = Pool(_allowing(settings, 1), CALLERS)

    def ask(_nr: int) -> int:
        with pool.connection(wait_s=30, within_s=30) as connection:
            return connection.execute("SELECT 1 FROM pg_sleep(0.02)").rowcount

    with ThreadPoolExecutor(CALLERS) as threads:
        assert list(threads.map(ask, range(24))) == [1] * 24
    pool.close()


def test_a_server_that_allows_none_is_away(settings: Settings) -> None:
    with pytest.raises(StoreAway), Pool(_allowing(settings, 0), CALLERS).connection(wait_s=0.1, within_s=30):
        pass


def test_what_is_made_after_the_pool_was_closed_is_closed_when_it_comes_back(settings: Settings) -> None:
    pool = Pool(_allowing(settings, 2), CALLERS)
    with pool.connection(wait_s=30, within_s=30) as before:
        pool.close()
        with pool.connection(wait_s=30, within_s=30) as after:
            assert not after.closed
    assert before.closed
    assert after.closed
