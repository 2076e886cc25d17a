"""Which refusals of a connection to Postgres are mistakes of DATABASE_URL, which no waiting mends."""

from urllib.parse import quote

import psycopg
import pytest

from onelane.errors import ConfigError, StoreUnavailable
from onelane.postgres.connection import ALL_IN_USE, DENIALS, refusal_of
from onelane.postgres.faults import misfit
from onelane.postgres.pooled import connector

FAILED = 'connection to server at "db.example" (10.0.0.1), port 5432 failed: FATAL:  '


@pytest.mark.parametrize(
    "said",
    [
        'password authentication failed for user "bot"',
        "fe_sendauth: no password supplied",
        'role "bot" does not exist',
        'role "bot" is not permitted to log in',
        'database "bots" does not exist',
        "no such user: bot",
        "no such database: bots",
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
        "no more connections allowed (max_client_conn)",
        "server login has been failing, try again later (server_login_retry)",
        "query_wait_timeout",
        "pgbouncer cannot connect to server",
    ],
)
def test_a_server_that_may_come_back_is_waited_for(said: str) -> None:
    assert refusal_of(psycopg.OperationalError(FAILED + said)) not in DENIALS.values()


@pytest.mark.parametrize(
    "said",
    [
        "unsupported startup parameter: options",
        "unsupported startup parameter in options: lock_timeout",
        "Feature not supported: RDS Proxy currently doesn't support command-line options.",
    ],
)
def test_a_pooler_that_takes_no_options_is_recognised(said: str) -> None:
    assert "PG_POOLER=transaction" in refusal_of(psycopg.OperationalError(FAILED + said))


@pytest.mark.parametrize("options", ["-e", "-B 10", "search_path=bot", "-c search_path"])
def test_options_that_no_transaction_can_set_are_a_mistake_of_the_address(options: str) -> None:
    url = f"postgresql://db/d?options={quote(options)}"
    connector(url, None)
    with pytest.raises(ConfigError, match=r"^DATABASE_URL: options"):
        connector(url, "transaction")


@pytest.mark.parametrize(
    "said",
    [
        "remaining connection slots are reserved for non-replication superuser connections",
        "no more connections allowed (max_client_conn)",
    ],
)
def test_a_server_without_a_free_connection_is_recognised(said: str) -> None:
    assert refusal_of(psycopg.OperationalError(FAILED + said)) == ALL_IN_USE


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.UndefinedTable(),
        psycopg.errors.UndefinedColumn(),
        psycopg.errors.InsufficientPrivilege(),
        StoreUnavailable("Postgres refused for now", "42883"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_database_of_another_release_is_named_as_such(error: psycopg.Error | StoreUnavailable) -> None:
    assert f"SQLSTATE {error.sqlstate}): run `onelane migrate`" in str(misfit(error))


@pytest.mark.parametrize("error", [psycopg.errors.UniqueViolation(), StoreUnavailable("no connection")], ids=repr)
def test_what_another_release_does_not_mend_is_not(error: psycopg.Error | StoreUnavailable) -> None:
    assert misfit(error) is None
