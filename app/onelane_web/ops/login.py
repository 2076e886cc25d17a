"""Login and protection of everything under /ops.

A name and a password, sent with a form; then a token in a cookie that no other site can make a browser send
(SameSite=Strict) and no script can read. `_guard` checks every request under /ops, whatever blueprint serves it. A
request that changes something must also come from our own pages, carry the token of the login's forms, and be of an
operator who may act.
"""

import hmac
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from secrets import token_urlsafe
from typing import Final, cast
from urllib.parse import SplitResult, urlsplit

from flask import Blueprint, Flask, Response, abort, g, jsonify, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from redis import Redis
from redis.exceptions import RedisError
from werkzeug.exceptions import Forbidden

from onelane import keys
from onelane.bootstrap import Services
from onelane.errors import LanesUnavailable, StoreUnavailable
from onelane.operations.audit import record
from onelane.telemetry.log import event
from onelane_web.ops import pages, rq_dashboard, showing
from onelane_web.ops.attempts import Attempts
from onelane_web.ops.logins import PREFIX, TOKEN_FIELD, Login, Logins
from onelane_web.ops.operators import Operators

TOKEN_HEADER: Final = "X-CSRFToken"  # noqa: S105 - the name under which it sends it
FORWARDED_KEPT_S: Final = 7 * 86_400
LOOKING: Final = frozenset({"ops.logout", *pages.LOOKING})
"""What is a POST, and yet open to who may only look."""
CHANGES_NOTHING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
OUTAGE_RETRY_AFTER_S: Final = 5

HEADERS: Final = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # no-referrer would make browsers hide the Origin that we check
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POLICY: Final = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'; "
FORM_POLICY: Final = POLICY + "style-src 'nonce-{nonce}'"
# rq-dashboard's templates are compiled in the browser (unsafe-eval) and style their elements. Without unsafe-inline
# no markup that comes as data can run: no handler, no javascript: address, no script without the nonce.
PAGE_POLICY: Final = POLICY + "script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
DASHBOARD_POLICY: Final = (
    POLICY + "script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'"
)
POLICIES: Final = {rq_dashboard.NAME: DASHBOARD_POLICY, pages.NAME: PAGE_POLICY}
"""By blueprint; of others FORM_POLICY."""


def install(app: Flask, services: Services) -> None:
    """Mount the pages under /ops, behind the login."""
    operators = Operators(services.settings)
    logins = Logins(services.database, operators, is_secure=not services.settings.development)
    app.session_interface = logins
    app.before_request(partial(_guard, services.lanes.client if services.settings.proxy_hops == 0 else None))
    app.after_request(_harden)
    app.jinja_env.globals["nonce"] = _nonce
    attempts = Attempts(services.lanes.client)
    app.register_blueprint(_pages(services, operators, logins, attempts), url_prefix=PREFIX)
    app.register_blueprint(pages.blueprint(services), url_prefix=PREFIX)
    showing.install(app)
    if rq_dashboard.is_installed():
        app.register_blueprint(
            rq_dashboard.blueprint(services.lanes.client, services.database), url_prefix=f"{PREFIX}/rq"
        )


def _pages(services: Services, operators: Operators, logins: Logins, attempts: Attempts) -> Blueprint:
    pages = Blueprint("ops", __name__)

    @pages.get("/")
    def home() -> ResponseReturnValue:
        return redirect(url_for("pages.overview"))

    @pages.get("/login")
    def form() -> ResponseReturnValue:
        return _form()

    @pages.post("/login")
    def login() -> ResponseReturnValue:
        """Count the attempt, then check it."""
        address = request.remote_addr or ""
        if wait_s := attempts.wait_s(address):
            event("operator_refused", reason="too many attempts")
            return _form(f"Too many attempts. Try again in {_wait(wait_s)}."), 429, {"Retry-After": str(wait_s)}
        operator = operators.check(request.form.get("user", ""), request.form.get("password", ""))
        if operator is None:
            event("operator_refused", reason="wrong name or password")
            return _form("Wrong name or password."), 401, {"WWW-Authenticate": 'Form realm="onelane"'}
        response: Response = redirect(_target(), HTTPStatus.SEE_OTHER)  # type: ignore[assignment]
        logins.begin(operator, response)
        attempts.succeeded(address)
        event("operator_logged_in", by=operator.name)
        record(services.database, operator.name, "logged_in", None)
        return response

    @pages.post("/logout")
    def logout() -> ResponseReturnValue:
        response: Response = redirect(url_for("ops.form"), HTTPStatus.SEE_OTHER)  # type: ignore[assignment]
        logins.end(request, response)
        return response

    pages.register_error_handler(LanesUnavailable, _redis_away)
    pages.register_error_handler(StoreUnavailable, _postgres_away)
    return pages


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _target() -> str:
    """Return the page that was asked for before the login, if it is one of ours."""
    wanted = request.args.get("next", "")
    parts = _parts(wanted)
    is_ours = parts is not None and wanted.startswith(f"{PREFIX}/") and not parts.scheme and not parts.netloc
    return wanted if is_ours and wanted.isprintable() and "\\" not in wanted else url_for("ops.home")


def _parts(address: str) -> SplitResult | None:
    """Take an address apart; None for what is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return None


def _form(problem: str | None = None) -> str:
    return render_template("ops/login.html", problem=problem)


def _wait(seconds: int) -> str:
    return f"{seconds} seconds" if seconds <= 60 else f"{-(-seconds // 60)} minutes"  # noqa: PLR2004 - a minute


def _redis_away(_error: LanesUnavailable) -> ResponseReturnValue:
    """Refuse while attempts cannot be counted: else an outage would allow guessing."""
    return _away("Nobody can log in while Redis is away. Try again soon.")


def _postgres_away(_error: StoreUnavailable | None = None) -> ResponseReturnValue:
    return _away("Postgres does not answer, and knows who is logged in. Try again soon.")


def _away(problem: str) -> ResponseReturnValue:
    return _form(problem), HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(OUTAGE_RETRY_AFTER_S)}


def _is_guarded() -> bool:
    return request.path == PREFIX or request.path.startswith(f"{PREFIX}/") or request.blueprint == rq_dashboard.NAME


def _guard(redis: Redis | None) -> ResponseReturnValue | None:
    """Refuse everybody but operators, changes that another site's page asks for, and those of who may only look.

    `redis` takes the note that a proxy stands before us, where none is expected.
    """
    if not _is_guarded():
        return None
    if redis is not None and "X-Forwarded-For" in request.headers:
        _note_proxy(redis)
    changes = request.method not in CHANGES_NOTHING
    if changes and not _is_from_here():
        raise Forbidden("the request comes from another site")
    if request.endpoint in {"ops.form", "ops.login"}:
        return None
    login = cast(Login, session)
    if login.is_unknown:
        return _postgres_away()
    if login.operator is None:
        return _ask_to_log_in()
    g.operator = login.operator
    if changes and not (_has_token() and (login.operator.may_act or request.endpoint in LOOKING)):
        abort(HTTPStatus.FORBIDDEN)
    return None


def _note_proxy(redis: Redis) -> None:
    """Let the doctor know: behind a proxy that is not counted, everybody has one address."""
    with suppress(RedisError, OSError):
        redis.set(keys.FORWARDED, 1, ex=FORWARDED_KEPT_S, nx=True)


def _ask_to_log_in() -> ResponseReturnValue:
    """Redirect a browser to the form; answer a program with 401."""
    if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
        return redirect(url_for("ops.form", next=request.full_path.rstrip("?")), HTTPStatus.SEE_OTHER)
    answer = jsonify(error="not logged in", login=url_for("ops.form"))
    return answer, HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": 'Form realm="onelane"'}


def _is_from_here() -> bool:
    """Return whether the request comes from our own pages, as the browser reports it; other clients report nothing."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("Origin")
    parts = _parts(origin or "")
    return origin is None or (parts is not None and parts.netloc == request.host)


def _has_token() -> bool:
    given = request.headers.get(TOKEN_HEADER) or request.form.get(TOKEN_FIELD, "")
    return hmac.compare_digest(_bytes(given), _bytes(session[TOKEN_FIELD]))


def _nonce() -> str:
    """Return the nonce that allows our own inline script and style in this answer."""
    if "nonce" not in g:
        g.nonce = token_urlsafe(16)
    return str(g.nonce)


def _harden(response: Response) -> Response:
    if _is_guarded():
        policy = POLICIES.get(request.blueprint or "", FORM_POLICY)
        response.headers["Content-Security-Policy"] = policy.format(nonce=_nonce())
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
    return response
