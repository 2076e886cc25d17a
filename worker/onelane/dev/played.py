"""What somebody does in a conversation, as `onelane send` plays it: rounds of requests, as the provider makes them."""

from dataclasses import dataclass
from uuid import uuid4

import click
from pydantic import TypeAdapter, ValidationError

from onelane.channels import Parsed, Persona, Provider, Signed
from onelane.channels.fields import ExternalId
from onelane.deliveries import Delivery, IdentityChange, Item, Kind, Status
from onelane.errors import BadRequest
from onelane.model import Attachment, AttachmentKind, JsonObject, uuid_or_none

FILES = "https://files.example"
FILE_ID = 900_000_000_000_000


@dataclass(frozen=True)
class Act:
    """What is done, once or `count` times."""

    user: str
    text: str = ""
    button: str | None = None
    message_id: str | None = None
    count: int = 1
    album: int = 0
    """How many pictures."""
    location: tuple[float, float] | None = None
    edit: str | None = None
    delete: str | None = None
    react: tuple[str, str] | None = None
    """An emoji, and the id of the message."""
    status: str | None = None
    reply: str | None = None
    """The reply that the status is of: its own id, or the provider's."""
    then_new_id: bool = False
    """That the person has another id first."""


def rounds(act: Act, provider: Provider, url: str) -> list[list[Signed]]:
    """Make the requests, those of a round at once, one round after the other; a ClickException says what cannot be."""
    try:
        return _rounds(act, provider, url)
    except BadRequest as problem:
        raise click.ClickException(str(problem).removeprefix(": ")) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = first["loc"][0] if first["loc"] else "message id"
        raise click.ClickException(f"{field}: {first['msg'].removeprefix('Value error, ')}") from None


def understood(provider: Provider, url: str, signed: Signed) -> Parsed:
    """Return what the service will understand of a request."""
    return provider.parse(signed.received(url))


def _rounds(act: Act, provider: Provider, url: str) -> list[list[Signed]]:
    persona = provider.persona(act.user)
    if act.status:
        return [[provider.sign(url, _status(act))]]
    first: list[list[Signed]] = []
    if act.then_new_id:
        change = _change(provider, persona, act.user)
        first, persona = [[provider.sign(url, change)]], Persona(change.adds)
    line = _line(act, persona)
    if act.location and "location" not in _parts_of(provider, url, line):
        raise click.ClickException("this provider sends no places")
    if act.album:
        return [*first, *([one] for one in _album(act, provider, url, line))]
    return [*first, [provider.sign(url, one) for one in _numbered(line, act.count)]]


def _parts_of(provider: Provider, url: str, line: Delivery) -> JsonObject:
    """Return what arrives of a line beside its text."""
    deliveries = understood(provider, url, provider.sign(url, line)).deliveries
    return deliveries[0].parts if deliveries else {}


def _line(act: Act, persona: Persona) -> Delivery:
    external_id = TypeAdapter(ExternalId).validate_python(act.message_id or f"msg_{uuid4().hex}")
    event, quoted, parts = _happening(act)
    return Delivery(
        senders=persona.senders,
        conversation=persona.conversation,
        external_id=external_id,
        kind=Kind.EVENT if event else Kind.MESSAGE,
        event=event,
        text=act.text,
        button=act.button,
        parts=parts,
        quoted=quoted,
        route=persona.route,
    )


def _happening(act: Act) -> tuple[str | None, str | None, JsonObject]:
    """Return which event it is, of which message, and what comes with it."""
    if act.edit:
        return "edited", act.edit, {}
    if act.delete:
        return "deleted", act.delete, {}
    if act.react:
        emoji, message = act.react
        return "reaction", message, {"reaction": {"emoji": emoji}}
    if act.location:
        latitude, longitude = act.location
        return None, None, {"location": {"latitude": latitude, "longitude": longitude}}
    return None, None, {}


def _status(act: Act) -> Status:
    if not act.reply:
        raise click.ClickException("--status needs --reply: the id of the reply that it is of")
    return Status(provider_id=act.reply, state=act.status or "", key=uuid_or_none(act.reply))


def _change(provider: Provider, persona: Persona, user: str) -> IdentityChange:
    """Give the person the id that somebody else's name would have, and keep what was known."""
    new = provider.persona(f"{user}, later").senders[-1]
    return IdentityChange(senders=persona.senders, adds=(new,), external_id=f"msg_{uuid4().hex}")


def _numbered(line: Delivery, count: int) -> list[Delivery]:
    """Make `count` messages of one, numbered so that their order can be seen."""
    if count == 1:
        return [line]
    return [
        line.model_copy(
            update={"external_id": f"{line.external_id}-{number}", "text": f"{line.text} {number}" if line.text else ""}
        )
        for number in range(1, count + 1)
    ]


def _album(act: Act, provider: Provider, url: str, line: Delivery) -> list[Signed]:
    """Send the pictures in one message where the provider has such, else in one each, the text with the first."""
    pictures = [
        Attachment(
            url=f"{FILES}/{number}.jpg",
            id=str(FILE_ID + number),
            kind=AttachmentKind.IMAGE,
            content_type="image/jpeg",
        )
        for number in range(1, act.album + 1)
    ]
    try:
        return [provider.sign(url, line.model_copy(update={"attachments": tuple(pictures)}))]
    except BadRequest:
        items: list[Item] = [
            line.model_copy(
                update={
                    "external_id": f"{line.external_id}-{number}",
                    "text": line.text if number == 1 else "",
                    "attachments": (picture,),
                    "parts": {"album": line.external_id},
                }
            )
            for number, picture in enumerate(pictures, 1)
        ]
        return provider.sign_all(url, items)
