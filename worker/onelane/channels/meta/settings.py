"""What a channel says of its app at Meta."""

from typing import Annotated

from pydantic import Field

from onelane.channels import fields
from onelane.formats import PublicUrl, matching


class MetaSettings(fields.ProviderSettings):
    """What `meta` needs to know."""

    secrets: fields.Secrets
    """The app's secrets: they sign."""
    verify_tokens: Annotated[tuple[fields.Secret, ...], Field(max_length=8)] = ()
    """What was entered beside the address in the app's dashboard; without any, no handshake succeeds."""
    access_token: fields.Secret | None = None
    """A system user's token: it sends, and fetches files."""
    phone_number_id: Annotated[str, matching(r"\d{1,32}", "must be the number's id, digits only")] | None = None
    """Our number's id: the way back where a webhook names none."""
    api_version: Annotated[str, matching(r"v\d{1,3}\.\d{1,2}", "must be like v26.0")] = "v26.0"
    base_url: PublicUrl = "https://graph.facebook.com"
