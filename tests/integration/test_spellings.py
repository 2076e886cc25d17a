"""A number that comes in two spellings is one user, by the channel's `normalize_sender`."""

from collections.abc import Iterator

import pytest

from onelane.bootstrap import Services, open_services
from onelane.channels import provider_of
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane_web import create_app
from tests.rows import Rows


@pytest.fixture
def spelling(services: Services, settings: Settings) -> Iterator[Services]:
    demo = settings.channels["demo"].model_copy(update={"normalize_sender": "tests.spelling:without_blanks"})
    spelling = open_services(settings.model_copy(update={"channels": {"demo": demo}}))
    yield spelling
    spelling.close()


def test_two_spellings_are_one_user_and_what_cannot_be_spelled_is_kept_whole(spelling: Services, rows: Rows) -> None:
    client, provider = create_app(spelling).test_client(), provider_of(spelling.settings.channels["demo"])

    def deliver(sender: str) -> int:
        external_id = f"m{sender.replace(' ', '_')}"
        signed = provider.sign("", Delivery(senders=(sender,), external_id=external_id, text="hello"))
        return client.post("/webhooks/demo", data=signed.body, headers=dict(signed.headers)).status_code

    assert [deliver(sender) // 100 for sender in ("+1 555 0100", "+15550100", "alice")] == [2, 2, 2]
    assert rows.senders() == ["+15550100"]
    [kept] = spelling.database.rows("SELECT reasons FROM quarantined_payloads")
    assert kept.reasons == ["normalize_sender raised ValueError"]
