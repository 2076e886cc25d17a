"""The chaos harness finds whatever is left of somebody who was forgotten, also where none of their words is."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import redis

from onelane.dev.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.chaos.history import Recorder
from tests.chaos.service.leftovers import _remembered

USER, OTHER = str(uuid4()), str(uuid4())


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """Return a connection whose tables are gone after the test."""
    with psycopg.connect(postgres.url) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def client(redis_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client
        client.flushall()


@pytest.fixture
def history(tmp_path: Path) -> Path:
    Recorder("provider", tmp_path).note(
        "forgotten", user_id=USER, channel="demo", sender="+1", words=["a-mark-of-theirs"]
    )
    return tmp_path


def test_nothing_is_found_of_who_is_forgotten_wholly(
    database: psycopg.Connection, client: redis.Redis, history: Path
) -> None:
    client.zadd("lanes:in", {OTHER: 1})
    database.execute("DROP TABLE IF EXISTS accepted_deliveries CASCADE")
    database.execute("CREATE TABLE accepted_deliveries (external_id text, user_id uuid)")
    database.execute("INSERT INTO accepted_deliveries VALUES ('sha256:0', %s)", (USER,))
    assert list(_remembered(database, client, history)) == []


@pytest.mark.parametrize("left", [USER, "a-mark-of-theirs"], ids=["id", "word"])
def test_a_row_with_their_id_or_a_word_of_theirs_is_found(
    database: psycopg.Connection, client: redis.Redis, history: Path, left: str
) -> None:
    database.execute("CREATE TABLE somewhere (what text)")
    database.execute("INSERT INTO somewhere VALUES (%s), (%s)", (left, OTHER))
    assert list(_remembered(database, client, history)) == [f"somewhere has ({left})"]


def test_a_key_with_their_id_is_found_and_so_is_one_that_holds_it(
    database: psycopg.Connection, client: redis.Redis, history: Path
) -> None:
    client.set(f"session:user:{USER}", OTHER)
    client.zadd("lanes:in", {USER: 1, OTHER: 1})
    assert len(list(_remembered(database, client, history))) == 2
