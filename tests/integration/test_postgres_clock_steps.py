"""Postgres' clock is set back or ahead while a service works: everybody is answered once, in order, in one session."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from onelane.config import Settings
from onelane.postgres.migrations import migrate
from tests.conftest import Accept, RunWorker, eventually
from tests.rows import Rows
from tests.stepping import SteppingPostgres

pytestmark = pytest.mark.slow

HOUR_S = 3_600
USERS = ("alice", "bob", "carol")


@pytest.fixture(scope="module")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SteppingPostgres]:
    folder = tmp_path_factory.mktemp("stepping-postgres") / "data"
    with SteppingPostgres(folder, {"fsync": "off"}) as server:
        migrate(server.url)
        yield server


@pytest.fixture
def settings(settings: Settings, stepping: SteppingPostgres) -> Settings:
    where = {"database_url": stepping.url, "pg_pooler": None}
    return settings.model_copy(update={**where, "handler": "tests.bots:handle"})


@pytest.mark.parametrize("steps", [[-HOUR_S], [HOUR_S], [-HOUR_S, HOUR_S], [HOUR_S, -HOUR_S]], ids=str)
def test_everybody_is_answered_once_and_in_order_over_steps_of_postgres_clock(
    stepping: SteppingPostgres, settings: Settings, rows: Rows, accept: Accept, run_worker: RunWorker, steps: list[int]
) -> None:
    stepping.clock.step(-stepping.clock.offset_s)
    users = [accept(sender).user_id for sender in USERS]
    with run_worker(settings):
        for step in steps:
            stepping.clock.step(step)
            for sender in USERS:
                accept(sender, "raise-until 2" if sender == "bob" else "hello")
            eventually(lambda: not rows.waiting(), within_s=60)
    for user in users:
        accepted = [message.accepted_at for message in rows.inbound(user)]
        assert all(before <= after for before, after in pairwise(accepted))
        assert rows.shape(user) == [(list(range(1, len(steps) + 2)), None)]
        assert len(rows.replies(user)) == len(steps) + 1
    assert rows.anomalies() == []
