"""Telegram signs nothing: it sends back the secret that setWebhook was given."""

from dataclasses import replace

from onelane.channels import Inbound
from onelane.testing.conformance.case import settings_of

SETTINGS = settings_of("telegram")
SECRET = SETTINGS["secrets"][0]


def signed(request: Inbound) -> Inbound:
    """Put the secret beside the update."""
    return replace(request, headers={**request.headers, "x-telegram-bot-api-secret-token": SECRET})
