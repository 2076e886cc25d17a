"""The files of a finished turn are held while Postgres cannot take them, as the turn itself is: its handler is paid."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from onelane import AsyncTurn, Reply, Turn, Upload
from onelane.bootstrap import Services
from onelane.config import Channel, Settings
from onelane.deliveries import Accepted, Delivery
from tests.conftest import RunWorker, deliver, eventually, slow_after
from tests.rows import Rows
from tests.working_off import work_off

AWAY = "53100"
"""Of which each call makes two tries."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    channel = Channel(provider="telegram", bot_token="123456:token-of-the-test", secrets=("secret-of-sixteen-letters",))
    return settings.model_copy(update={"channels": {"tg": channel}, "attempts_max": 1})


@contextmanager
def refusing(services: Services, sqlstate: str, tries: int) -> Iterator[None]:
    """Let the table of files refuse so many tries."""
    services.database.rows("DROP SEQUENCE IF EXISTS tries")
    services.database.rows("CREATE SEQUENCE tries")  # counts on, whatever is rolled back
    services.database.rows(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('tries') <= "
        f"{tries} THEN RAISE 'planted' USING ERRCODE = '{sqlstate}'; END IF; RETURN NEW; END $$"
    )
    services.database.rows("CREATE TRIGGER refuse BEFORE INSERT ON reply_files EXECUTE FUNCTION refuse()")
    try:
        yield
    finally:
        services.database.rows("DROP FUNCTION refuse CASCADE")


def accept(services: Services, text: str = "hello") -> Accepted:
    return deliver(services, [Delivery(senders=("5550101",), external_id=uuid4().hex, text=text)], "tg")[0]


class Photographer:
    """A bot that answers with a file, and counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def handle(self, turn: Turn) -> Reply:
        self.runs += 1
        return Reply(media=[Upload(data=b"pixels", name="a.png", content_type="image/png")])

    async def handle_async(self, turn: AsyncTurn) -> Reply:
        return self.handle(turn)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("sqlstate", slow_after(2, [AWAY, "55P03", "57014", "40P01"]))
def test_a_file_that_postgres_does_not_take_for_now_lets_no_handler_run_again(
    sqlstate: str, is_async: bool, rows: Rows, services: Services, settings: Settings
) -> None:
    bot, accepted = Photographer(), accept(services)
    with refusing(services, sqlstate, tries=2):
        work_off(services, settings, bot.handle_async if is_async else bot.handle)
    row = rows.message(accepted.message_id)
    assert (bot.runs, row.state, row.attempts) == (1, "processed", 0)
    assert bytes(rows.ask("SELECT data FROM reply_files").data) == b"pixels"
    assert not services.database.breaker.is_open


def test_a_file_is_held_for_as_long_as_a_commit_is(rows: Rows, services: Services, settings: Settings) -> None:
    bot, accepted = Photographer(), accept(services)
    with refusing(services, AWAY, tries=2):
        work_off(services, settings.model_copy(update={"commit_hold_s": 0}), bot.handle)
    assert (bot.runs, rows.states(accepted.user_id)) == (2, ["processed"])


@pytest.mark.parametrize("sqlstate", ["54000", "22P05", "P0001"])
def test_a_file_that_postgres_refuses_is_its_turns_failed_attempt(
    sqlstate: str, rows: Rows, services: Services, settings: Settings
) -> None:
    bot, accepted = Photographer(), accept(services)
    with refusing(services, sqlstate, tries=1_000):
        work_off(services, settings, bot.handle)
    row = rows.message(accepted.message_id)
    assert (bot.runs, row.state, row.attempts) == (1, "dead", 1)
    assert sqlstate in row.last_error


@pytest.mark.slow
def test_the_time_in_which_a_file_is_held_is_not_its_handlers(
    rows: Rows, services: Services, settings: Settings, run_worker: RunWorker
) -> None:
    strict = settings.model_copy(update={"turn_timeout_s": 1, "handler": "tests.bots:handle"})
    with refusing(services, "55P03", tries=4), run_worker(strict):  # 3.75 s of pauses
        accepted = accept(services, "upload 10")
        eventually(lambda: rows.waiting() == 0)
    row = rows.message(accepted.message_id)
    assert (row.state, row.attempts) == ("processed", 0)
