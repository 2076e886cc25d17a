"""Plans are kept, and tables grow: what is planned while a table has one page reads none of it from end to end."""

from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg.rows import tuple_row

from onelane.bootstrap import Services, open_services
from onelane.config import Settings
from onelane.postgres import connection
from onelane.postgres.connection import Connection, Row
from tests.conftest import RunWorker, accept_all, eventually
from tests.rows import TABLES

FEW = {"failures_to_tell", "channel_holds", "quarantined_payloads", "reply_files"}
"""Tables that duties read from one end, a bounded part at a time."""
SCANS = "SELECT relname, seq_scan FROM pg_stat_xact_user_tables"


class Scans:
    """Notes which statements of ours read which tables from end to end."""

    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()

    def run(self, wire: Connection, query: Any, params: Any = None) -> psycopg.Cursor[Row]:
        """Run a statement; what this connection has read is counted before and after it."""
        with wire.transaction():
            before = self._counted(wire)
            cursor = wire.execute(query, params)
            self.found |= {(table, str(query)) for table, _ in self._counted(wire) - before if table not in FEW}
        return cursor

    def _counted(self, wire: Connection) -> set[tuple[str, int]]:
        return set(psycopg.Cursor(wire, row_factory=tuple_row).execute(SCANS))


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Scans:
    scans = Scans()

    def run(wire: Connection, query: Any, params: Any = None) -> psycopg.Cursor[Row]:
        return scans.run(wire, query, params)

    monkeypatch.setattr(Connection, "run", run)
    return scans


@pytest.mark.parametrize("seqscan", ["off", "on"])
def test_no_call_of_a_conversation_reads_a_whole_table(
    services: Services,
    settings: Settings,
    run_worker: RunWorker,
    scans: Scans,
    seqscan: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with psycopg.connect(settings.database_url, autocommit=True) as wire:
        wire.execute("TRUNCATE users, inbox CASCADE")  # tests before this may have left pages without rows
        accept_all(services, [("somebody", "hello")])
        wire.execute(f"VACUUM ANALYZE {', '.join(TABLES)}")
    scans.found.clear()
    monkeypatch.setitem(connection.SETTINGS, "enable_seqscan", seqscan)
    with run_worker(settings), closing(open_services(settings)) as own:
        accept_all(own, [(f"user {nr}", text) for nr in range(3) for text in ("hello", "view_sites_fr", "option_1_fr")])
        eventually(lambda: not own.lanes.client.exists("lanes:in", "lanes:out"))
    if seqscan == "off":
        assert not scans.found
    else:  # and what is not so is found
        assert {"users", "inbox"} <= {table for table, _ in scans.found}
