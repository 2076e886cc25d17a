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
    """Its xoxb- token, with the scope `files:read`: needed to fetch files."""
    app_id: Annotated[str, Field(pattern="^[A-Z0-9]{1,64}$")] | None = None
    """Its A… id, by which its own posts are known; without it, each webhook's `api_app_id`."""
    base_url: Annotated[fields.Url, AfterValidator(_without_slash)] = BASE_URL
    """Where Slack's methods are called."""
