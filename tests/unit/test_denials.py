"""Which refusals of a connection to Postgres are mistakes of DATABASE_URL, which no waiting mends."""

import psycopg
import pytest

from onelane.connection import ALL_IN_USE, DENIALS, refusal_of

FAILED = 'connection to server at "db.example" (10.0.0.1), port 5432 failed: FATAL:  '


@pytest.mark.parametrize(
    "said",
    [
        'password authentication failed for user "bot"',
        "fe_sendauth: no password supplied",
        'role "bot" does not exist',
        'role "bot" is not permitted to log in',
        'database "bots" does not exist',
        'permission denied for database "bots"',
        'no pg_hba.conf entry for host "10.0.0.2", user "bot", database "bots", no encryption',
    ],
)
def test_a_mistake_of_database_url_is_worded_as_such_and_names_nobody(said: str) -> None:
    sentence = refusal_of(psycopg.OperationalError(FAILED + said))
    assert sentence in DENIALS.values()
    assert "DATABASE_URL" in sentence
    assert not {"bot", "bots", "10.0.0.1", "10.0.0.2"} & set(sentence.replace('"', " ").split())


@pytest.mark.parametrize(
    "said",
    [
        "the database system is starting up",
        "the database system is shutting down",
        'database "bots" is not currently accepting connections',
        "Connection refused",
        "sorry, too many clients already",
    ],
)
def test_a_server_that_may_come_back_is_waited_for(said: str) -> None:
    assert refusal_of(psycopg.OperationalError(FAILED + said)) not in DENIALS.values()


def test_a_server_without_a_free_connection_is_recognised() -> None:
    said = "remaining connection slots are reserved for non-replication superuser connections"
    assert refusal_of(psycopg.OperationalError(FAILED + said)) == ALL_IN_USE
