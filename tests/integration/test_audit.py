"""What operators do is written down: once, with who and on whom, and never changed."""

from uuid import uuid4

import psycopg
import pytest

from onelane.bootstrap import Services
from onelane.operations.audit import Entry, record


def audited(services: Services) -> list[tuple[str, str, str | None]]:
    return [(row.who, row.act, row.subject) for row in services.database.rows("SELECT * FROM audit ORDER BY nr")]


def test_what_was_written_down_is_neither_changed_nor_deleted(services: Services) -> None:
    subject = str(uuid4())
    record(services.database, "ann", "texts_shown", subject, {"session_id": uuid4()})
    for change in ("UPDATE audit SET who = 'bob'", "UPDATE audit SET subject = NULL", "DELETE FROM audit"):
        with pytest.raises(psycopg.Error, match="only added to"):
            services.database.rows(change)
    services.database.rows("UPDATE audit SET subject = NULL, detail = '{}'")  # the person was forgotten
    assert audited(services) == [("ann", "texts_shown", None)]


@pytest.mark.parametrize(("did", "rows"), [("true", 1), ("NULL::uuid", 0), ("false", 0), ("'noted'::text", 1)])
def test_an_act_is_written_down_once_if_it_did_something(services: Services, did: str, rows: int) -> None:
    entry = Entry(services.database, "ann", "user_paused", uuid4())
    for _ in range(2):  # the first answer was lost
        entry.row(f"SELECT {did} AS did", ())
    assert len(audited(services)) == rows
