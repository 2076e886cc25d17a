"""The operator's pages under /ops: the whole service, one user, and what needs somebody."""

from collections.abc import Callable
from functools import wraps
from hashlib import sha256
from http import HTTPStatus
from typing import Final
from uuid import UUID, uuid4

from flask import Blueprint, Response, abort, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from onelane.bootstrap import Services
from onelane.errors import LanesUnavailable, StoreUnavailable
from onelane.model import uuid_or_none
from onelane.operations import anomalies, reply_views
from onelane.operations.audit import record
from onelane.operations.conversation import Conversation, conversation_of
from onelane.operations.dead import dead_messages
from onelane.operations.overview import glance
from onelane.operations.reply_views import ReplyState
from onelane.operations.users import find_user, newest_users, user_of_session
from onelane.users import user_of
from onelane_web.ops import acting, examining, rq_dashboard
from onelane_web.ops.notes import NOTES

NAME: Final = "pages"
LOOKING: Final = frozenset({f"{NAME}.search", f"{NAME}.examination"})
"""POSTs that change nothing: a name must not get into an address, and no robot may run the checks."""
LISTED: Final = 50
REPLIES_LOOKED_AT: Final = 5_000
ANOMALIES_S: Final = 0.2
ANOMALIES_ASKED_S: Final = 4.0

View = Callable[..., str]


def blueprint(services: Services) -> Blueprint:
    """Serve them; the caller mounts them behind the login."""
    pages = Blueprint(NAME, __name__, static_folder="static", static_url_path="/static")
    pages.context_processor(
        lambda: {"note": NOTES.get(request.args.get("note", "")), "has_rq": rq_dashboard.is_installed()}
    )
    _general(pages, services)
    _lists(pages, services)
    _people(pages, services)
    examining.add_to(pages, services)
    acting.add_to(pages, services)
    pages.register_error_handler(StoreUnavailable, _away)
    pages.register_error_handler(LanesUnavailable, _away)
    return pages


def _general(pages: Blueprint, services: Services) -> None:
    database = services.database

    @pages.get("/overview")
    @_unless_seen
    def overview() -> str:
        now = glance(database, services.lanes, services.out_lanes)
        kinds = (("turns", now.turns), ("replies", now.replies))
        return render_template("ops/overview.html", now=now, kinds=kinds, said=examining.quick_faults(services))

    @pages.get("/anomalies", endpoint="anomalies")
    @_unless_seen
    def found() -> str:
        window = request.args.get("window")
        windows = (window,) if window in anomalies.WINDOWS else anomalies.WINDOWS
        looked = anomalies.look_back(database, ANOMALIES_ASKED_S if window else ANOMALIES_S, windows)
        return render_template("ops/anomalies.html", looked=looked, windows=anomalies.WINDOWS)


def _lists(pages: Blueprint, services: Services) -> None:
    """Add what needs somebody."""
    database = services.database

    @pages.get("/dead")
    @_unless_seen
    def dead() -> str:
        user, seq = uuid_or_none(request.args.get("user", "")), request.args.get("seq", 0, int)
        messages = dead_messages(database, after=(user, seq) if user else None, most=LISTED)
        return render_template("ops/dead.html", messages=messages, is_full=len(messages) == LISTED)

    @pages.get("/quarantine")
    @_unless_seen
    def quarantine() -> str:
        return render_template("ops/quarantine.html", kept=services.quarantine.all(None, LISTED))

    @pages.get("/replies")
    @_unless_seen
    def replies() -> str:
        wanted = request.args.get("state", "")
        state = ReplyState(wanted) if wanted in set(ReplyState) else None
        listed = reply_views.replies(database, state=state, most=LISTED, looked_at=REPLIES_LOOKED_AT)
        counts = reply_views.overview(database)
        return render_template("ops/replies.html", replies=listed, counts=counts, state=state, states=list(ReplyState))


def _people(pages: Blueprint, services: Services) -> None:
    database = services.database

    @pages.get("/users")
    @_unless_seen
    def users() -> str:
        before = uuid_or_none(request.args.get("before", ""))
        listed = newest_users(database, LISTED, before)
        return render_template("ops/users.html", users=listed, is_full=len(listed) == LISTED)

    @pages.post("/users")
    def search() -> ResponseReturnValue:
        """Find a user by id, by a session's id, or by a name; a name in an address would be in everybody's log."""
        user_id = _searched(services, request.form.get("who", "").strip())
        if user_id is None:
            return redirect(url_for(".users", note="nobody"), HTTPStatus.SEE_OTHER)
        return redirect(url_for(".conversation", user_id=user_id), HTTPStatus.SEE_OTHER)

    @pages.get("/users/<uuid:user_id>")
    @_unless_seen
    def conversation(user_id: UUID) -> str:
        return _conversation(_known(services, user_id), with_texts=False)

    @pages.post("/users/<uuid:user_id>/texts")
    def texts(user_id: UUID) -> str:
        """Show what was written, and note that it was shown, and to whom."""
        told = _known(services, user_id)
        record(database, g.operator.name, "texts_shown", user_id)
        return _conversation(told, with_texts=True)


def _searched(services: Services, who: str) -> UUID | None:
    if (given := uuid_or_none(who)) is not None:
        return given if find_user(services.database, given) else user_of_session(services.database, given)
    channel, colon, name = who.partition(":")
    if colon and channel in services.settings.channels:
        return user_of(services.database, channel, name)
    found = (user_of(services.database, one, who) for one in sorted(services.settings.channels))
    return next((one for one in found if one), None)


def _known(services: Services, user_id: UUID) -> Conversation:
    found = conversation_of(services.database, services.lanes, services.out_lanes, user_id)
    return found if found is not None else abort(404)


def _conversation(told: Conversation, *, with_texts: bool) -> str:
    g.key = str(uuid4())  # names the answer that is written on this page, which is sent once
    return render_template("ops/conversation.html", told=told, with_texts=with_texts, key=g.key)


def _unless_seen(view: View) -> Callable[..., ResponseReturnValue]:
    """Answer 304 to who has the page as it is."""

    @wraps(view)
    def answer(**named: object) -> ResponseReturnValue:
        body = view(**named)
        response = Response(body)
        response.set_etag(sha256(body.replace(g.get("key", ""), "").encode()).hexdigest()[:32])
        return response.make_conditional(request)

    return answer


def _away(_error: Exception) -> ResponseReturnValue:
    return render_template("ops/away.html"), HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "5"}
