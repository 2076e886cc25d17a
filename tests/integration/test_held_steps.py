"""What a step's function has answered is paid for: it is held while Postgres is away, as a finished turn is."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest

from onelane.bootstrap import Services, open_services
from onelane.bot import AsyncTurn, Turn
from onelane.config import Settings
from tests.conftest import DEADLINE_S, Accept, eventually
from tests.processes import worker_process
from tests.proxy import Proxy
from tests.rows import Rows
from tests.working_off import work_off


class Model:
    """A model whose every answer comes just when Postgres goes away, until somebody has noticed that."""

    def __init__(self, settings: Settings, proxy: Proxy) -> None:
        self.services = open_services(settings.model_copy(update={"database_url": proxy.url}))
        self.asked = 0
        self._proxy = proxy
        self._healing: list[Thread] = []

    def answer(self) -> str:
        self.asked += 1
        outage = ExitStack()
        outage.enter_context(self._proxy.refusing())

        def heal() -> None:
            with outage:
                eventually(lambda: self.services.database.breaker.is_open)

        self._healing.append(Thread(target=heal))
        self._healing[-1].start()
        return "paid"

    def close(self) -> None:
        for thread in self._healing:
            thread.join(DEADLINE_S)
        self.services.close()


@pytest.fixture
def model(services: Services, settings: Settings) -> Iterator[Model]:
    with Proxy(settings.database_url) as proxy:
        model = Model(settings, proxy)
        yield model
        model.close()


@pytest.mark.parametrize("is_async", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_answer_that_comes_as_postgres_goes_away_is_kept_and_asked_for_once(
    is_async: bool, model: Model, rows: Rows, settings: Settings, accept: Accept
) -> None:
    async def answer() -> str:
        return model.answer()

    def handle(turn: Turn) -> str:
        return turn.step("model", model.answer)

    async def handle_async(turn: AsyncTurn) -> str:
        return await turn.step("model", answer)

    accept("alice")
    work_off(model.services, settings, handle_async if is_async else handle)
    assert (model.asked, rows.answered()) == (1, 1)
    assert not model.services.database.breaker.is_open


@pytest.mark.slow
@pytest.mark.parametrize("way", ["sync", "async", "apart"])
def test_an_answer_is_held_for_longer_than_a_turn_may_take(
    way: str, services: Services, rows: Rows, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    """Postgres is silent, so that the first try alone takes longer than the handler's time."""
    asked, log = tmp_path / "asked", tmp_path / "worker.log"
    message = accept("alice", f"step {asked}")
    if way == "apart":
        services.database.rows("UPDATE inbox SET deaths = 2")
    handler = "tests.bots:handle_async" if way == "async" else "tests.bots:handle"
    with Proxy(settings.database_url) as proxy:
        beyond = settings.model_copy(update={"database_url": proxy.url, "turn_timeout_s": 2})
        with worker_process(beyond, handler=handler, log=log):
            eventually(asked.exists)
            with proxy.silencing():
                Path(f"{asked}.answer").touch()
                eventually(lambda: "postgres_away" in log.read_text())
            eventually(lambda: rows.answered() == 1)
    assert asked.read_text() == "asked\n"
    assert rows.message(message.message_id).attempts == 0
