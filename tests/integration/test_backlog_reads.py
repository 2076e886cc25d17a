"""What a call reads does not grow with backlogs and history, also when its plans were made while there was little."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg.types.json import Jsonb

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.lanes.marks import FIRST_USER
from onelane.postgres.connection import session_options
from onelane.processes.reconciler import WAITING_USERS
from tests import rows
from tests.calls import Item, delivery, failure, lease, sent, settlement

MADE_ANEW = 6
"""So many times a plan is made for the parameters at hand; then one for all of them is kept."""
BACKLOG = 400
READS_MAX = 12
PAGE = 100
WHO_WAIT = {keys.IN: ("inbox", rows.WAITING_USERS), keys.OUT: ("outbox", rows.WAITING_REPLIES)}
NAMED_MAX = 16
"""Of so many waiting replies a settled turn names the ids."""
READS = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = %s"
SCANNED = (
    "SELECT relname, seq_tup_read FROM pg_stat_xact_user_tables WHERE schemaname = current_schema() ORDER BY relname"
)
SMALL = {"channel_policies", "deployment", "schema_files"}

Call = Callable[[str, Item], Item]


@pytest.fixture
def connection(services: Services, settings: Settings) -> Iterator[psycopg.Connection]:
    """One transaction, for which Postgres counts what is read; rolled back at its end."""
    url = settings.database_url
    with psycopg.connect(url, prepare_threshold=0, options=session_options(url)) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def call(connection: psycopg.Connection) -> Call:
    def call(function: str, item: Item) -> Item:
        row = connection.execute(f"SELECT {function}(%s)", (Jsonb([item]),)).fetchone()
        assert row is not None
        answer: Item = row[0][0]
        return answer

    return call


def scanned(connection: psycopg.Connection) -> dict[str, int]:
    """Count the rows that were read table by table, without an index."""
    return {name: count for name, count in connection.execute(SCANNED).fetchall() if name not in SMALL}


def reads(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(READS, (table,)).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture(params=["as it is", "analysed when it was worked off"])
def past(request: pytest.FixtureRequest, connection: psycopg.Connection, call: Call) -> None:
    """Let there have been a backlog before, of which Postgres counted the order, and then that nothing was left."""
    if request.param == "as it is":
        return
    for number in range(BACKLOG):
        accepted = call("accept", delivery("carol", f"c{number}"))
    call(
        "settle_turns", settlement(call("begin_turns", lease(accepted["user_id"])), replies=BACKLOG * [{"text": "hi"}])
    )
    connection.execute("ANALYZE inbox, outbox")
    connection.execute("DELETE FROM inbox")
    connection.execute("DELETE FROM outbox")
    connection.execute("ANALYZE inbox, outbox")


@pytest.mark.usefixtures("past")
def test_what_a_turn_reads_does_not_grow_with_its_users_backlog(connection: psycopg.Connection, call: Call) -> None:
    for number in range(MADE_ANEW):
        accepted = call("accept", delivery("bob", f"b{number}"))
        begun = call("begin_turns", lease(accepted["user_id"]))
        call("settle_turns", settlement(begun))
    for number in range(BACKLOG):
        accepted = call("accept", delivery("alice", f"a{number}"))
    begun = call("begin_turns", lease(accepted["user_id"]))

    before = reads(connection, "inbox")
    call("accept", delivery("alice", "another"))
    begun = call("begin_turns", lease(accepted["user_id"]))
    settled = call("settle_turns", settlement(begun, goes_on=True, replies=[{"text": "hello"}]))
    connection.execute("SELECT request_session_end(%s)", (accepted["user_id"],))

    assert settled["next"]["outcome"] == "turn"
    assert reads(connection, "inbox") - before <= READS_MAX


@pytest.mark.usefixtures("past")
@pytest.mark.parametrize("kind", [keys.IN, keys.OUT])
def test_what_a_page_of_the_reconciler_reads_does_not_grow_with_all_who_wait(
    connection: psycopg.Connection, kind: str
) -> None:
    table, who_wait = WHO_WAIT[kind]
    connection.execute(who_wait, (BACKLOG,))
    before = reads(connection, table)
    page = connection.execute(WAITING_USERS[kind], {"after": FIRST_USER, "most": PAGE}).fetchall()
    assert len(page) == PAGE
    assert reads(connection, table) - before <= PAGE + READS_MAX


@pytest.mark.usefixtures("past")
def test_what_a_send_reads_does_not_grow_with_its_users_waiting_replies(
    connection: psycopg.Connection, call: Call
) -> None:
    replies = [{"text": "hello"}]
    for number in range(MADE_ANEW):
        accepted = call("accept", delivery("bob", f"b{number}"))
        call("settle_turns", settlement(call("begin_turns", lease(accepted["user_id"])), replies=replies))
        call("settle_sends", sent(call("begin_sends", lease(accepted["user_id"])), goes_on=True))
    accepted = call("accept", delivery("alice", "a1"))
    begun = call("begin_turns", lease(accepted["user_id"]))
    call("settle_turns", settlement(begun, replies=BACKLOG * replies))
    accepted = call("accept", delivery("alice", "a2"))
    begun = call("begin_turns", lease(accepted["user_id"]))

    before = {table: reads(connection, table) for table in ("outbox", "messages")}
    settled = call("settle_turns", settlement(begun, replies=replies))
    sends = call("settle_sends", sent(call("begin_sends", lease(accepted["user_id"])), goes_on=True))

    assert len(settled["outbox"]) == NAMED_MAX
    assert sends["next"]["outcome"] == "send"
    assert all(reads(connection, table) - count <= NAMED_MAX + READS_MAX for table, count in before.items())


def test_no_table_is_read_from_end_to_end_because_it_was_small_once(connection: psycopg.Connection, call: Call) -> None:
    """Of a table of one page Postgres reads the page; it would go on so when there are thousands."""
    for number in range(2):
        accepted = call("accept", delivery("alice", f"a{number}"))
    connection.execute("ANALYZE")
    before = scanned(connection)
    for number in range(2 * MADE_ANEW):
        call("accept", delivery("bob", f"b{number}"))
        begun = call("begin_turns", lease(accepted["user_id"], taken_over=number == 0))
        settled = call("settle_turns", settlement(begun, goes_on=True, replies=[{"text": "hello"}]))
        call("settle_turns", failure(settled["next"]))
        call("settle_sends", sent(call("begin_sends", lease(accepted["user_id"])), goes_on=True))
        accepted = call("accept", delivery("alice", f"a{number + 2}"))
    assert scanned(connection) == before
