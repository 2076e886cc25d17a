"""What a channel says of its account at Twilio."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from onelane.channels import fields


class TwilioSettings(fields.ProviderSettings):
    """What `twilio` needs to know."""

    secrets: fields.Secrets
    """The account's auth tokens."""
    account_sid: Annotated[str, Field(pattern=r"^AC[0-9a-f]{32}$")] | None = None
    """Without it nothing is sent. Webhooks of another account go into quarantine."""
    api_key: Annotated[str, Field(pattern=r"^SK[0-9a-f]{32}$")] | None = None
    """With its secret: fetches files and sends in place of the account's auth token."""
    api_secret: fields.Secret | None = None
    from_number: Annotated[str, Field(pattern=r"^[!-~]{1,256}$")] | None = None
    """Our address, as `+1555…` or `whatsapp:+1555…`: sends where the user has written to none."""
    messaging_service_sid: Annotated[str, Field(pattern=r"^MG[0-9a-f]{32}$")] | None = None
    """Chooses our number, where neither the user nor from_number does."""
    validity_period_s: Annotated[int, Field(ge=1, le=36_000)] = 600
    """How long an SMS may wait at Twilio before it is dropped."""
    typing: bool = False
    """Whether users of WhatsApp see that an answer is written: by a public beta of Twilio's."""
    base_url: fields.Url = "https://api.twilio.com"
    """Where the account's API is."""
    messaging_url: fields.Url = "https://messaging.twilio.com"
    """Where the API for typing is."""

    @model_validator(mode="after")
    def _key_has_a_secret(self) -> Self:
        if (self.api_key is None) != (self.api_secret is None):
            raise ValueError("api_key and api_secret belong together")
        return self
