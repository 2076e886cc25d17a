"""Telegram signs nothing: it sends back the secret that setWebhook was given."""

from dataclasses import replace

from onelane.channels import Inbound

SECRET = "a-secret-of-today_0123456789"
SETTINGS = {
    "secrets": [SECRET, "a-secret-of-yesterday_0123456789"],
    "bot_token": "990001:a-token-that-was-made-for-tests",
    "bot_username": "LaneBot",
}


def signed(request: Inbound) -> Inbound:
    """Put the secret beside the update."""
    return replace(request, headers={**request.headers, "x-telegram-bot-api-secret-token": SECRET})
