"""Fixtures for the tests of a bot, which pytest finds by itself. What they need is imported by who asks for them.

The bot is named in `pytest.ini` or `pyproject.toml` (`onelane_handler = "mybot:handle"`), or on the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onelane.testing.bot import Bot
    from onelane.testing.fake_model import FakeModel

HANDLER = "onelane_handler"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting."""
    what = "the bot that the fixtures bot and real_bot test, as module:function"
    parser.addini(HANDLER, what, default="")
    parser.getgroup("onelane").addoption("--onelane-handler", metavar="MODULE:FUNCTION", help=what)


@pytest.fixture
def bot(request: pytest.FixtureRequest) -> Iterator[Bot]:
    """Test the bot in memory."""
    from onelane.testing.bot import Bot  # noqa: PLC0415 - it costs only those who use it

    with Bot(_handler(request.config)) as tested:
        yield tested


@pytest.fixture
def real_bot(request: pytest.FixtureRequest) -> Iterator[Bot]:
    """Test the bot on real servers, which start with the first such test."""
    from onelane.testing.bot import Bot  # noqa: PLC0415 - as above

    with Bot(_handler(request.config), real=True) as tested:
        yield tested


@pytest.fixture(scope="session")
def fake_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeModel]:
    """Run a fake model, at which LLM_BASE_URL points: one for all tests, as a bot keeps its client."""
    from onelane.testing.fake_model import fake_model  # noqa: PLC0415 - as above

    journal = tmp_path_factory.mktemp("model") / "journal.jsonl"
    with fake_model(journal) as model, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_BASE_URL", model.base_url)
        yield model


def _handler(config: pytest.Config) -> str:
    handler: str = config.getoption("--onelane-handler") or config.getini(HANDLER)
    if not handler:
        raise pytest.UsageError(f'{HANDLER} is not set: {HANDLER} = "mybot:handle" in [tool.pytest.ini_options]')
    return handler
