"""What `slack` needs to know."""

from typing import Annotated

from pydantic import AfterValidator, Field

from onelane.channels import fields

BASE_URL = "https://slack.com/api"


def _without_slash(address: str) -> str:
    return address.rstrip("/")


class SlackSettings(fields.ProviderSettings):
    """The settings of a Slack app."""

    secrets: fields.Secrets
    """Its signing secrets: not the client secret, and not the verification token."""
    bot_token: fields.Secret | None = None
    """Its xoxb- token. It sends (`chat:write`, `files:write`), looks sends up (`*:history`), fetches (`files:read`)."""
    app_id: Annotated[str, Field(pattern="^[A-Z0-9]{1,64}$")] | None = None
    """Its A… id, by which its own posts are known; without it, each webhook's `api_app_id`."""
    thinking: Annotated[fields.Storable, Field(min_length=1, max_length=64)] = "is thinking…"
    """What users read in a thread while an answer is written."""
    base_url: Annotated[fields.Url, AfterValidator(_without_slash)] = BASE_URL
    """Where Slack's methods are called."""
