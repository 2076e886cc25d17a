"""`onelane channel check`, after a webhook that was signed for another address than the one that is verified."""

import json

import pytest
from click.testing import CliRunner

from onelane.bootstrap import Services, open_services
from onelane.channels import provider_of
from onelane.cli import onelane
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery
from onelane_web import create_app

SECRET = "auth-token-of-the-account"
SUPPORT = {"provider": "twilio", "secrets": [SECRET], "public_url": "https://bot.example/chat"}
SIGNED, VERIFIED = "https://bot.example/webhooks/support", "https://bot.example/chat/webhooks/support"
PHONE, TEXT = "+33612345678", "a very private text"


@pytest.mark.usefixtures("_root_logger_as_it_was")
def test_a_channels_check_names_the_address_that_was_signed_and_the_one_that_was_verified(
    services: Services, settings: Settings
) -> None:
    channel = Channel.model_validate(SUPPORT)
    web = open_services(settings.model_copy(update={"channels": {"support": channel}}))
    signed = provider_of(channel).sign(SIGNED, Delivery(senders=(PHONE,), external_id="SM1", text=TEXT))
    refused = create_app(web).test_client().post("/webhooks/support", data=signed.body, headers=signed.headers)
    web.close()
    assert refused.status_code == 401
    variables = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "CHANNELS": json.dumps({"support": SUPPORT}),
    }
    said = CliRunner().invoke(onelane, ["channel", "check", "support"], env=variables, catch_exceptions=False).output
    assert f"it is signed for {SIGNED}: " in said
    assert f"verified: {VERIFIED}" in said
    assert not any(private in said for private in (SECRET, PHONE, TEXT))
    kept = services.lanes.client.get("unsigned:support")
    assert not any(private in str(kept) for private in (SECRET, PHONE, TEXT))
    assert 0 < services.lanes.client.ttl("unsigned:support") <= 86_400
