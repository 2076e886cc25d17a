"""The envelope of Slack's Events API: one event, and for which app and workspace it is."""

from dataclasses import dataclass
from typing import Any

from onelane.channels import fields
from onelane.channels.bodies import repaired
from onelane.channels.slack.places import Id, Place, instant, key_of, raw_of
from onelane.deliveries import Delivery, Kind
from onelane.errors import BadRequest
from onelane.model import JsonObject


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event, with what is said about it."""

    id: str
    team: str
    app: str | None
    """Our own app's id."""
    bots: frozenset[str]
    """The user ids of our own app's bot."""
    at: float | None
    event: JsonObject
    repairs: tuple[str, ...]

    def message_key(self, channel: str, ts: str) -> str:
        """Name a message: alike in its `message` and in its `app_mention`, which are two events."""
        return key_of(self.team, channel, ts)

    def happened(self, event: str, place: Place, **more: Any) -> Delivery:
        """Make the line of an event that is no message."""
        common = {"external_id": self.id, "kind": Kind.EVENT, "event": event, "repairs": self.repairs}
        return Delivery(**{**common, "raw": raw_of(self.event), "sent_at": instant(self.at), **place.line(), **more})

    def mentions_us(self) -> bool:
        """Whether its text has our bot's name, as Slack marks it: what is typed like a mark is escaped."""
        text = str(self.event.get("text"))
        return any(f"<@{bot}{end}" in text for bot in self.bots for end in ">|")

    def is_own(self, poster: "Poster") -> bool:
        """Whether our own app posted it."""
        names = {poster.app_id, (poster.bot_profile or Profile()).app_id}
        return (self.app is not None and self.app in names) or poster.user in self.bots


class Profile(fields.Incoming):
    """What a bot's post says of the bot."""

    app_id: Id | None = None


class Poster(fields.Incoming):
    """Who posted a message."""

    user: Id | None = None
    bot_id: Id | None = None
    app_id: Id | None = None
    bot_profile: Profile | None = None
    subtype: str | None = None

    @property
    def is_bot(self) -> bool:
        """Whether an app posted it, ours or another."""
        return self.bot_id is not None or self.subtype == "bot_message"


class _Authorization(fields.Incoming):
    user_id: Id | None = None
    is_bot: bool = False


class _Envelope(fields.Incoming):
    team_id: Id | None = None
    context_team_id: Id | None = None
    enterprise_id: Id | None = None
    api_app_id: Id | None = None
    event_id: fields.ExternalId
    event_time: float | None = None
    event: dict[str, Any]
    authorizations: tuple[_Authorization, ...] | None = None


def opened(body: JsonObject, app_id: str | None) -> Envelope:
    """Read an envelope; `app_id` is our app's where the settings have it."""
    found = fields.checked(_Envelope, body)
    team = found.team_id or found.context_team_id or found.enterprise_id
    if team is None:
        raise BadRequest("team_id", "is missing")
    event, repairs = repaired(found.event)
    return Envelope(
        id=found.event_id,
        team=team,
        app=app_id or found.api_app_id,
        bots=frozenset(one.user_id for one in found.authorizations or () if one.is_bot and one.user_id),
        at=found.event_time,
        event=event,
        repairs=repairs,
    )
