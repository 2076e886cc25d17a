"""The webhook endpoint: a request goes to `onelane.inbox.receiving`, its answer or refusal comes back."""

from functools import partial
from http import HTTPStatus
from typing import NoReturn

from flask import Blueprint, Response, abort, g, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import MethodNotAllowed, RequestEntityTooLarge

from onelane.bootstrap import Services
from onelane.channels import Answer, Provider
from onelane.deliveries import Accepted
from onelane.errors import (
    BacklogFull,
    BadRequest,
    BadSignature,
    DeliveryError,
    InboxFull,
    StoreUnavailable,
    Unsupported,
)
from onelane.formats import CHANNEL_NAME
from onelane.inbox.fullness import Fullness
from onelane.inbox.unsigned import Unsigned
from onelane.telemetry.log import event
from onelane.telemetry.numbers import FULL, REASONS, REFUSALS
from onelane_web.few_lines import FewLines
from onelane_web.inbound import address_of, body_of, inbound_of, look_at_head, waited_s

STORE_RETRY_AFTER_S = 5
BACKLOG_RETRY_AFTER_S = 30
"""Of one user, or of all."""
ADDRESS_MAX = 300
PREFIX = "/webhooks/"


def blueprint(services: Services, fullness: Fullness) -> Blueprint:
    """Serve /webhooks/<channel> for every configured channel: POST, and GET where the provider has a handshake."""
    channels, refusals = services.settings.channels, Unsigned(services.lanes.client)
    pages, few_lines = Blueprint("webhook", __name__), FewLines()

    @pages.route(f"{PREFIX}<channel>", methods=["GET", "POST"], provide_automatic_options=False)
    def receive(channel: str) -> ResponseReturnValue:
        if channel not in channels:
            if few_lines.allow("channel_unknown"):
                event("channel_unknown", channel=channel if CHANNEL_NAME.fullmatch(channel) else None)
            abort(404)
        provider, public_url = services.providers[channel], channels[channel].public_url
        if request.method != "POST":
            return _response(_handshake(provider, public_url))
        look_at_head(provider)
        if (is_full := fullness.is_full) and not provider.has_statuses:
            return _full(few_lines)
        inbound = inbound_of(public_url, body_of(min(provider.body_max_bytes, services.settings.body_max_bytes)))
        note = partial(_log_accepted, channel)
        return _response(services.receiving.receive(channel, inbound, note, waited_s(), is_full=is_full))

    def unsigned(error: BadSignature) -> ResponseReturnValue:
        """Tell the operator what was verified; the sender, whoever that is, learns less."""
        channel = (request.view_args or {})["channel"]
        address = address_of(channels[channel].public_url)[:ADDRESS_MAX]
        if few_lines.allow("signature_refused"):
            event("signature_refused", channel=channel, reason=error.why, address=address)
        refusals.note(channel, error.why, address)
        return jsonify(error=str(error)), error.status

    pages.after_request(_count_refusal)
    pages.register_error_handler(BadSignature, unsigned)
    pages.register_error_handler(DeliveryError, partial(_refused, few_lines))
    pages.register_error_handler(RequestEntityTooLarge, partial(_too_large, few_lines))
    pages.register_error_handler(StoreUnavailable, partial(_store_unavailable, few_lines))
    pages.register_error_handler(InboxFull, partial(_full, few_lines))
    pages.register_error_handler(BacklogFull, partial(_backlog_full, few_lines))
    return pages


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, content_type=answer.content_type)


def _handshake(provider: Provider, public_url: str | None) -> Answer:
    """Answer a GET, if the provider has one; a HEAD never is."""
    if request.method != "GET":
        _refuse_method()
    try:
        return provider.handshake(inbound_of(public_url, b""))
    except Unsupported:
        _refuse_method()


def _refuse_method() -> NoReturn:
    raise MethodNotAllowed(["POST"])


def _log_accepted(channel: str, message: Accepted) -> None:
    event(
        "delivery_duplicate" if message.duplicate else "delivery_accepted",
        channel=channel,
        message_id=message.message_id,
        user_id=message.user_id,
        seq=message.seq,
    )


def _count_refusal(response: Response) -> Response:
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        REFUSALS.count(g.get("refused_for") or REASONS.get(response.status_code, ""))
    return response


def _log_refused(few_lines: FewLines, reason: str) -> None:
    """Log a refusal of a configured channel; its name is one of ours, nothing else of the request is."""
    if few_lines.allow("delivery_refused"):
        event("delivery_refused", channel=(request.view_args or {}).get("channel"), reason=reason)


def _refused(few_lines: FewLines, error: DeliveryError) -> ResponseReturnValue:
    _log_refused(few_lines, str(error))
    if isinstance(error, BadRequest):
        return jsonify(error=str(error), field=error.field), error.status
    return jsonify(error=str(error)), error.status


def _too_large(few_lines: FewLines, _error: RequestEntityTooLarge) -> ResponseReturnValue:
    _log_refused(few_lines, "body too large")
    return jsonify(error="the body is too large"), 413


def _store_unavailable(few_lines: FewLines, _error: StoreUnavailable) -> ResponseReturnValue:
    _log_refused(few_lines, "store unavailable")
    return jsonify(error="try again later"), 503, {"Retry-After": str(STORE_RETRY_AFTER_S)}


def _full(few_lines: FewLines, _error: InboxFull | None = None) -> ResponseReturnValue:
    """Refuse what comes while too much waits of all users together, unread where it can be nothing but messages."""
    g.refused_for = FULL
    _log_refused(few_lines, "too many messages wait")
    return jsonify(error="too many messages wait"), 503, {"Retry-After": str(BACKLOG_RETRY_AFTER_S)}


def _backlog_full(few_lines: FewLines, _error: BacklogFull) -> ResponseReturnValue:
    _log_refused(few_lines, "backlog full")
    return jsonify(error="too many waiting messages"), 429, {"Retry-After": str(BACKLOG_RETRY_AFTER_S)}
