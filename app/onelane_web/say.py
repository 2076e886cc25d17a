"""POST /say/<channel>: a service of yours says something to a user, with a request signed as a Standard Webhook."""

from http import HTTPStatus
from typing import Final

from flask import Blueprint, abort, jsonify
from flask.typing import ResponseReturnValue
from pydantic import SecretStr
from werkzeug.exceptions import RequestEntityTooLarge

from onelane.bootstrap import Services
from onelane.bot.reply import Reply
from onelane.channels import Inbound, fields, provider_of
from onelane.channels.bodies import json_object
from onelane.channels.provider import Provider
from onelane.channels.verdicts import Unsendable, Word
from onelane.config import Channel
from onelane.errors import BadRequest, BadResult, ConfigError, DeliveryError, StoreRefused, StoreUnavailable
from onelane.model import Attachment, Button, JsonObject
from onelane_web.inbound import body_of, inbound_of, look_at_head

RETRY_AFTER_S: Final = 5
STATUSES: Final = {Word.OPTED_OUT: HTTPStatus.CONFLICT, Word.NO_ROUTE: HTTPStatus.NOT_FOUND}
"""Of refusals; all others are about the content."""


class Body(fields.Incoming):
    """What a request says: to whom, under which key, and the fields of a Reply."""

    user: fields.Sender
    key: fields.ExternalId
    """Without one it is the request's own id, which comes again when the request does."""
    text: fields.Storable = ""
    buttons: tuple[Button, ...] = ()
    media: tuple[Attachment, ...] = ()
    template: JsonObject | None = None
    quote: str | None = None
    raw: JsonObject | None = None

    def reply(self) -> Reply:
        """Return what is to be said; raise BadRequest for what nobody could send."""
        try:
            named = {name: value for name, value in self if name not in {"user", "key"}}
            return Reply(**named | {"media": [one.model_copy(update={"file": None}) for one in self.media]})
        except BadResult as problem:
            raise BadRequest("body", str(problem)) from None


def blueprint(services: Services, secret: SecretStr) -> Blueprint:
    """Serve it to those who sign with one of SAY_SECRET; raise ConfigError for what signs nothing."""
    door, pages = _door(secret), Blueprint("say", __name__)

    @pages.post("/say/<channel>")
    def say(channel: str) -> ResponseReturnValue:
        if channel not in services.settings.channels:
            abort(404)
        look_at_head(door)
        inbound = inbound_of(None, body_of(services.settings.body_max_bytes))
        door.verify(inbound)
        body = _body_in(inbound)
        said = services.saying.say(channel, body.user, body.reply(), body.key)
        return jsonify(said.model_dump(mode="json")), HTTPStatus.ACCEPTED

    pages.register_error_handler(DeliveryError, _refused)
    pages.register_error_handler(Unsendable, _unsendable)
    pages.register_error_handler(StoreRefused, _unstorable)
    pages.register_error_handler(StoreUnavailable, _store_unavailable)
    pages.register_error_handler(RequestEntityTooLarge, _too_large)
    return pages


def _door(secret: SecretStr) -> Provider:
    """Make what verifies; several secrets stand beside each other, so that one can be replaced."""
    try:
        return provider_of(Channel(provider="standard", secrets=tuple(secret.get_secret_value().split())))
    except ConfigError as error:
        raise ConfigError(f"SAY_SECRET: {str(error).partition(': ')[2]}") from None


def _body_in(request: Inbound) -> Body:
    content = {"key": request.header("webhook-id"), **json_object(request.body)}
    if unknown := sorted(content.keys() - Body.model_fields.keys()):
        raise BadRequest(unknown[0] if unknown[0].isidentifier() else "body", "is unknown")
    return fields.checked(Body, content)


def _refused(error: DeliveryError) -> ResponseReturnValue:
    named = {"field": error.field} if isinstance(error, BadRequest) else {}
    return jsonify(error=str(error), **named), error.status


def _unsendable(error: Unsendable) -> ResponseReturnValue:
    return jsonify(error=str(error), word=error.word), STATUSES.get(error.word, HTTPStatus.UNPROCESSABLE_ENTITY)


def _unstorable(_error: StoreRefused) -> ResponseReturnValue:
    return jsonify(error="Postgres cannot store it"), HTTPStatus.UNPROCESSABLE_ENTITY


def _store_unavailable(_error: StoreUnavailable) -> ResponseReturnValue:
    return jsonify(error="try again later"), HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(RETRY_AFTER_S)}


def _too_large(_error: RequestEntityTooLarge) -> ResponseReturnValue:
    return jsonify(error="the body is too large"), HTTPStatus.REQUEST_ENTITY_TOO_LARGE
