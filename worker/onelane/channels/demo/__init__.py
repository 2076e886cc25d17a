"""The provider `demo`: webhooks as `standard` has them, and replies that nobody but `GET …/replies` shows.

`onelane run` has a channel of it: what a bot says takes the whole way of a reply, up to a provider in this process.
"""

from typing import TYPE_CHECKING, ClassVar

from onelane.channels import fields
from onelane.channels.standard import SignedSettings, Standard, StandardSettings
from onelane.channels.standard.sending import StandardSender

if TYPE_CHECKING:
    from httpx2 import AsyncBaseTransport, Request, Response

URL = "http://demo.invalid/replies"
"""Nothing is ever posted there: see `transport`."""


class DemoSettings(SignedSettings):
    """What `demo` needs to know."""


class DemoSender(StandardSender):
    """Hands replies to a provider that lives in this process, and takes them all."""

    @property
    def transport(self) -> "AsyncBaseTransport":
        """Answer 200 at once."""
        import httpx2  # noqa: PLC0415 - it takes long, and the web needs it for nothing

        return httpx2.MockTransport(_taken)

    @property
    def base_url(self) -> None:
        """It is nowhere."""


class Demo(Standard):
    """A provider for trying a bot, without an account anywhere."""

    settings_model: ClassVar[type[fields.ProviderSettings]] = DemoSettings

    def __init__(self, settings: DemoSettings) -> None:
        """Take the signing secrets."""
        super().__init__(StandardSettings(secrets=settings.secrets))

    @property
    def sender(self) -> DemoSender:
        """Take every reply."""
        return DemoSender(URL, self._settings.secrets[0].get_secret_value())


def _taken(_request: "Request") -> "Response":
    import httpx2  # noqa: PLC0415 - as above

    return httpx2.Response(200)
