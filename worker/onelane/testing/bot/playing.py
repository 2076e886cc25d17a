"""What a person does, as the channel's provider delivers it: signed by its adapter, and understood by it again."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from onelane.channels import Persona, Provider, Signed
from onelane.deliveries import Delivery, IdentityChange, Kind
from onelane.errors import BadRequest
from onelane.model import Attachment
from onelane.testing.bot.engine import Item

URL = "https://bot.example/webhooks/test"


class Playing:
    """Plays one channel's provider."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider

    def message(
        self, persona: Persona, text: str = "", *, button: str | None = None, files: Sequence[Attachment] = ()
    ) -> list[Item]:
        """Deliver a message; raise BadRequest for what the provider never sends."""
        return self._delivered(_line(persona, text=text, button=button, attachments=tuple(files)))

    def event(self, persona: Persona, event: str, *, quoted: str, text: str) -> list[Item]:
        """Deliver what happened to a message."""
        return self._delivered(_line(persona, kind=Kind.EVENT, event=event, quoted=quoted, text=text))

    def album(self, persona: Persona, text: str, files: Sequence[Attachment]) -> list[Item]:
        """Deliver files in one message where the provider has such, else in one each, the text with the first."""
        try:
            return self.message(persona, text, files=files)
        except BadRequest:
            album = f"album_{uuid4().hex}"
            lines: list[Item] = [
                _line(persona, text=text if number == 0 else "", attachments=(one,), parts={"album": album})
                for number, one in enumerate(files)
            ]
            return [item for signed in self.provider.sign_all(URL, lines) for item in self._understood(signed)]

    def change(self, persona: Persona, new_id: str) -> tuple[list[Item], Persona]:
        """Deliver that a person has another id from now on; return who writes then."""
        adds = (self.provider.persona(new_id).senders[-1],)
        change = IdentityChange(senders=persona.senders, adds=adds, external_id=_id())
        return self._delivered(change), Persona(adds)

    def _delivered(self, item: Item) -> list[Item]:
        return self._understood(self.provider.sign(URL, item))

    def _understood(self, signed: Signed) -> list[Item]:
        """Verify and parse a request, as the web does."""
        request = signed.received(URL)
        self.provider.verify(request)
        return [_line_in(item) for item in self.provider.parse(request).items]


def _line(persona: Persona, **content: Any) -> Delivery:
    return Delivery(
        senders=persona.senders,
        conversation=persona.conversation,
        route=persona.route,
        external_id=_id(),
        **content,
    )


def _line_in(item: Any) -> Item:
    if not isinstance(item, Delivery | IdentityChange):
        raise BadRequest("", f"the adapter makes {type(item).__name__} of it")
    return item


def _id() -> str:
    return f"msg_{uuid4().hex}"
