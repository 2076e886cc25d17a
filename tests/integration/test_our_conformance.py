"""The conformance kit asks our own web, on real servers; docs/CHANNELS.md has the result."""

import re

import pytest

from onelane.bootstrap import Services
from onelane.config import Channel, Settings
from onelane.testing.conformance.case import PROVIDERS, cases, settings_of
from onelane.testing.conformance.running import run
from onelane_web import create_app
from tests.conftest import ROOT

TAKEN = "SELECT external_id FROM inbox UNION ALL SELECT external_id FROM messages WHERE direction = 'in'"
ROW = re.compile(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(settings: Settings) -> Settings:
    channels = {name: Channel(provider=name, **settings_of(name)) for name in PROVIDERS}
    return settings.model_copy(update={"channels": channels})


def test_our_web_answers_as_the_document_says(services: Services) -> None:
    def ids() -> list[str]:
        return [row.external_id for row in services.database.rows(TAKEN)]

    application = create_app(services).wsgi_app
    results = run(application, cases(), lambda provider: f"https://bot.example/webhooks/{provider}", ids)
    assert [line for result in results for line in result.wrong] == []
    section = (ROOT / "docs" / "CHANNELS.md").read_text().partition("\n## Conformance\n")[2].partition("\n## ")[0]
    written = {name: tuple(map(int, numbers)) for name, *numbers in ROW.findall(section)}
    assert written == {result.provider: (result.cases, result.questions, 0) for result in results}
