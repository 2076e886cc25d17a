"""What is kept for some days only is forgotten as fast as it comes, and not while it may be read again."""

from functools import partial
from itertools import count
from types import SimpleNamespace

import pytest

from onelane.bootstrap import Services
from onelane.processes import expiry
from onelane.processes.duties import Duties
from tests.conftest import DEADLINE_S
from tests.duties import duties_of
from tests.rows import Rows

MANY = 2_500
OF_EACH = ("accepted_deliveries", "reply_statuses", "quarantined_payloads", "reply_files")
OLD = (
    """
INSERT INTO accepted_deliveries (channel, external_id, user_id, message_id, seq, accepted_at)
SELECT 'demo', nr::text, new_id(), new_id(), nr, now() - interval '9 d' FROM generate_series(1, %s) nr
""",
    """
INSERT INTO reply_statuses (channel, provider_id, state, participant, received_at)
SELECT 'demo', nr::text, 'sent', '', now() - interval '9 d' FROM generate_series(1, %s) nr
""",
    """
INSERT INTO quarantined_payloads (channel, reasons, content_type, query, headers, body, digest, expires_at)
SELECT 'demo', '[]', '', '', '{}', '', nr::text::bytea, now() - interval '1 s' FROM generate_series(1, %s) nr
""",
    """
INSERT INTO reply_files (id, user_id, turn_seq, data, created_at)
SELECT new_id(), new_id(), nr, '', now() - interval '1 h' FROM generate_series(1, %s) nr
""",
)


@pytest.fixture
def duties(services: Services) -> Duties:
    return duties_of(services)


def left(rows: Rows) -> list[int]:
    counts = rows.counts()
    return [counts[table] for table in OF_EACH]


def test_one_round_forgets_all_that_is_old_batch_by_batch(
    services: Services, rows: Rows, duties: Duties, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand a minute were forgotten, and more than that came."""
    monkeypatch.setattr(expiry, "ROUND_MAX_S", DEADLINE_S)
    for query in OLD:
        services.database.rows(query, (MANY,))
    duties.forget_deliveries()
    assert left(rows) == [0, 0, 0, 0]


def test_a_round_is_bounded_in_time_and_each_table_has_its_turn(
    services: Services, rows: Rows, duties: Duties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "time", SimpleNamespace(monotonic=partial(next, count(step=3))))
    monkeypatch.setattr(expiry, "FORGET_MAX", 2)
    for query in OLD:
        services.database.rows(query, (10,))
    duties.forget_deliveries()
    assert left(rows) == [6, 6, 6, 6]


def test_to_forget_reads_no_table_from_end_to_end(services: Services) -> None:
    """A kept plan did, for want of anything old."""
    scans = "SELECT sum(seq_scan) AS n FROM pg_stat_xact_user_tables WHERE relname = ANY(%s)"
    for query in OLD[:2]:
        services.database.rows(query, (MANY,))
    with services.database.transaction() as transaction:
        before = transaction.execute(scans, (list(OF_EACH[:2]),)).fetchone()
        for query in (expiry.DELIVERIES, *expiry.FORGET[:1]) * 7:
            transaction.execute(query, {"days": 99, "most": 10, "after": expiry.FIRST})
        assert transaction.execute(scans, (list(OF_EACH[:2]),)).fetchone() == before
