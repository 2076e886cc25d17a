"""What an operator can press: each button is a POST, does one act of `operations`, and leads back to a page."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, Literal, TypeVar
from uuid import UUID

from flask import Blueprint, abort, g, redirect, request, url_for
from flask.typing import ResponseReturnValue

from onelane.bootstrap import Services
from onelane.channels.verdicts import Unsendable
from onelane.errors import BadResult, DeliveryError, LaneBusy, StoreRefused
from onelane.model import uuid_or_none
from onelane.operations import answering, forgetting
from onelane.operations import quarantine as quarantined
from onelane.operations.acts import Act, Redriven
from onelane.operations.quarantine import NotConfigured
from onelane.operations.users import sessions_of

Doing = TypeVar("Doing")
OnUser = Callable[[Services, UUID, str], str]
"""Does it to a user; returns the note for the page that follows."""


def add_to(pages: Blueprint, services: Services) -> None:
    """Add the buttons' addresses."""

    @pages.post("/users/<uuid:user_id>/acts/<act>")
    def on_user(user_id: UUID, act: str) -> ResponseReturnValue:
        note = _may(ON_USERS.get(act))(services, user_id, g.operator.name)
        return _to("users", note) if note in {"forgotten", "gone"} else _to_user(user_id, note)

    @pages.post("/messages/<uuid:message_id>/<act>")
    def on_dead(message_id: UUID, act: str) -> ResponseReturnValue:
        acts = {"retry": services.acts.retry, "drop": services.acts.drop}
        return _to("dead", _said(_may(acts.get(act))(message_id, by=g.operator.name), "not-dead"))

    @pages.post("/users/<uuid:user_id>/replies/<uuid:reply_id>/<act>")
    def on_reply(user_id: UUID, reply_id: UUID, act: str) -> ResponseReturnValue:
        note = _may(ON_REPLIES.get(act))(services, reply_id, g.operator.name)
        return _to_user(user_id, note)

    @pages.post("/quarantine/<uuid:kept_id>/<act>")
    def on_kept(kept_id: UUID, act: str) -> ResponseReturnValue:
        return _to("quarantine", _may(ON_KEPT.get(act))(services, kept_id, g.operator.name))

    @pages.post("/channels/<channel>/open")
    def open_channel(channel: str) -> ResponseReturnValue:
        opened = _may(services.reply_acts.open_channel)(channel, by=g.operator.name)
        return _to("replies", _said(opened, "not-held"))


def _may(act: Doing | None) -> Doing:
    """Refuse what there is not, and whoever may only look."""
    if not g.operator.may_act:
        abort(HTTPStatus.FORBIDDEN)
    return act if act is not None else abort(HTTPStatus.NOT_FOUND)


def _to(page: str, note: str) -> ResponseReturnValue:
    return redirect(url_for(f".{page}", note=note), HTTPStatus.SEE_OTHER)


def _to_user(user_id: UUID, note: str) -> ResponseReturnValue:
    return redirect(url_for(".conversation", user_id=user_id, note=note), HTTPStatus.SEE_OTHER)


def _said(act: Act, nothing: str) -> str:
    """Name the note for an act; `nothing` is that for one that has changed nothing, and says what is so."""
    return nothing if not act.did else "done" if act.redis else "away"


def _redriven(redriven: list[Redriven]) -> str:
    return "none-dead" if not redriven else "done" if all(one.redis for one in redriven) else "away"


def _outcome(answer: object, nothing: str = "not-open") -> str:
    return nothing if answer is None else "noted" if answer == "noted" else "done"


def _session() -> UUID:
    """Return the session that the page showed: another operator may have ended it meanwhile."""
    return uuid_or_none(request.form.get("session", "")) or abort(HTTPStatus.BAD_REQUEST)


def _escalate(services: Services, user_id: UUID, by: str) -> str:
    was_escalated = any(one.status == "escalated" for one in sessions_of(services.database, user_id, 1))
    note = _outcome(services.acts.escalate(user_id, _session(), by=by))
    return "escalated-already" if was_escalated and note == "done" else note


def _answer(services: Services, user_id: UUID, by: str) -> str:
    text, key = request.form.get("text", "").strip(), uuid_or_none(request.form.get("key", ""))
    if not text or key is None:
        return "empty"
    try:
        answering.answer(services.database, services.saying, user_id, text, key, by=by)
    except (Unsendable, BadResult, DeliveryError, StoreRefused):
        return "unsendable"
    return "answered"


def _replay(services: Services, kept_id: UUID, by: str) -> str:
    kept, receiving, channels = services.quarantine, services.receiving, services.settings.channels
    replayed = quarantined.replay(kept_id, services.database, kept, receiving, channels, by=by)
    if replayed is None:
        return "not-kept"
    return "stays" if isinstance(replayed, NotConfigured) or replayed.reasons else "accepted"


def _drop_kept(services: Services, kept_id: UUID, by: str) -> str:
    did = quarantined.drop(kept_id, services.database, services.quarantine, by=by)
    return "done" if did else "not-kept"


def _forget(services: Services, user_id: UUID, by: str) -> str:
    if request.form.get("sure") != "yes":
        return "unsure"
    try:
        forgotten = forgetting.forget(services, user_id, by)
    except LaneBusy:
        return "busy"
    return "gone" if forgotten is None else "forgotten"


def _settle(state: Literal["sent", "failed"]) -> OnUser:
    return lambda services, reply_id, by: _said(services.reply_acts.settle(reply_id, state, by=by), "reply-moved")


ON_USERS: Final[Mapping[str, OnUser]] = {
    "pause": lambda services, user_id, by: _said(services.acts.pause(user_id, by=by), "paused-already"),
    "resume": lambda services, user_id, by: _said(services.acts.resume(user_id, by=by), "not-paused"),
    "redrive": lambda services, user_id, by: _redriven(services.acts.redrive(user_id, by=by)),
    "end": lambda services, user_id, by: _outcome(services.acts.end_session(user_id, _session(), by=by)),
    "escalate": _escalate,
    "hand-back": lambda services, user_id, by: _outcome(
        services.acts.hand_back(user_id, _session(), by=by), "not-escalated"
    ),
    "answer": _answer,
    "forget": _forget,
}
ON_REPLIES: Final[Mapping[str, OnUser]] = {
    "resend": lambda services, reply_id, by: _said(services.reply_acts.resend(reply_id, by=by), "reply-moved"),
    "sent": _settle("sent"),
    "failed": _settle("failed"),
    "drop": lambda services, reply_id, by: _said(services.reply_acts.drop(reply_id, by=by), "reply-moved"),
}
ON_KEPT: Final[Mapping[str, OnUser]] = {"replay": _replay, "drop": _drop_kept}
