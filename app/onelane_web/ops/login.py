"""Login and protection of everything under /ops.

One name and one password, sent with a form; then a signed cookie that no other site can make a browser send
(SameSite=Strict) and no script can read. `_guard` checks every request under /ops, whatever blueprint serves it. A
request that changes something must also come from our own pages, and carry the login's token.
"""

import hmac
from datetime import timedelta
from hashlib import scrypt, sha256
from http import HTTPStatus
from secrets import token_urlsafe
from typing import Final
from urllib.parse import urlsplit

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    g,
    jsonify,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from pydantic import SecretStr
from werkzeug.exceptions import Forbidden

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.errors import LanesUnavailable
from onelane.telemetry.log import event
from onelane_web.ops import rq_dashboard
from onelane_web.ops.attempts import Attempts
from onelane_web.ops.operators import Operator

PREFIX: Final = "/ops"
COOKIE: Final = "onelane_ops"
TOKEN_COOKIE: Final = "_csrf_token"  # noqa: S105 - the name by which rq-dashboard's script looks for it
TOKEN_HEADER: Final = "X-CSRFToken"  # noqa: S105 - the name under which it sends it
TOKEN_FIELD: Final = "csrf_token"  # noqa: S105 - and our own forms
LOGIN_LASTS: Final = timedelta(hours=12)
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
DASHBOARD_POLICY: Final = (
    POLICY + "script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'"
)


def install(app: Flask, services: Services, password: SecretStr) -> None:
    """Mount the pages under /ops, behind the login."""
    settings = services.settings
    app.secret_key = _signing_key(settings, password)
    app.config.update(
        SESSION_COOKIE_NAME=COOKIE,
        SESSION_COOKIE_PATH=PREFIX,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=not settings.development,
        SESSION_REFRESH_EACH_REQUEST=False,  # a login lasts LOGIN_LASTS, however often it is used
        PERMANENT_SESSION_LIFETIME=LOGIN_LASTS,
        OPS_USER=settings.ops_user,
    )
    app.before_request(_guard)
    app.after_request(_harden)
    app.jinja_env.globals["nonce"] = _nonce
    app.register_blueprint(_pages(settings, password, Attempts(services.lanes.client)), url_prefix=PREFIX)
    if rq_dashboard.is_installed():
        app.register_blueprint(rq_dashboard.blueprint(services.lanes.client), url_prefix=f"{PREFIX}/rq")


def _signing_key(settings: Settings, password: SecretStr) -> bytes:
    """Derive the cookie's key, slowly: a cookie must not help to guess the password."""
    salt = settings.secret_key.get_secret_value() if settings.secret_key else "onelane"
    return scrypt(_bytes(password.get_secret_value()), salt=_bytes(f"{salt} {settings.ops_user}"), n=2**14, r=8, p=1)


def _pages(settings: Settings, password: SecretStr, attempts: Attempts) -> Blueprint:
    pages = Blueprint("ops", __name__)

    @pages.get("/")
    def home() -> ResponseReturnValue:
        if rq_dashboard.is_installed():
            return redirect(url_for("rq_dashboard.queues_overview"))
        return render_template("ops/home.html")

    @pages.get("/login")
    def form() -> ResponseReturnValue:
        return _form()

    @pages.post("/login")
    def login() -> ResponseReturnValue:
        """Count the attempt, then check it."""
        address = request.remote_addr or ""
        if wait_s := attempts.wait_s(address):
            event("operator_refused", reason="too many attempts")
            return _form(f"Too many attempts. Try again in {_minutes(wait_s)}."), 429, {"Retry-After": str(wait_s)}
        if not _is_operator(settings, password):
            event("operator_refused", reason="wrong name or password")
            return _form("Wrong name or password."), 401, {"WWW-Authenticate": 'Form realm="onelane"'}
        attempts.succeeded(address)
        event("operator_logged_in")
        return _logged_in(_target(), is_secure=not settings.development)

    @pages.post("/logout")
    def logout() -> ResponseReturnValue:
        session.clear()
        response = redirect(url_for("ops.form"), HTTPStatus.SEE_OTHER)
        response.delete_cookie(TOKEN_COOKIE, path=PREFIX)
        return response

    pages.register_error_handler(LanesUnavailable, _unavailable)
    return pages


def _is_operator(settings: Settings, password: SecretStr) -> bool:
    """Compare name and password in a time that depends on neither."""
    is_user = _is_equal(request.form.get("user", ""), settings.ops_user)
    is_password = _is_equal(request.form.get("password", ""), password.get_secret_value())
    return is_user & is_password


def _is_equal(given: str, wanted: str) -> bool:
    """Compare digests: they have one length, whatever was given."""
    return hmac.compare_digest(sha256(_bytes(given)).digest(), sha256(_bytes(wanted)).digest())


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _logged_in(target: str, *, is_secure: bool) -> Response:
    """Begin a new login with a new token, and redirect to the page that was asked for."""
    session.clear()
    session.permanent = True
    session[TOKEN_FIELD] = token_urlsafe(32)
    response: Response = redirect(target, HTTPStatus.SEE_OTHER)  # type: ignore[assignment]
    response.set_cookie(
        TOKEN_COOKIE, session[TOKEN_FIELD], max_age=LOGIN_LASTS, path=PREFIX, secure=is_secure, samesite="Strict"
    )
    return response


def _target() -> str:
    """Return the page that was asked for before the login, if it is one of ours."""
    wanted = request.args.get("next", "")
    parts = urlsplit(wanted)
    is_ours = wanted.startswith(f"{PREFIX}/") and not parts.scheme and not parts.netloc and wanted.isprintable()
    return wanted if is_ours and "\\" not in wanted else url_for("ops.home")


def _form(problem: str | None = None) -> str:
    return render_template("ops/login.html", problem=problem)


def _minutes(seconds: int) -> str:
    return "a minute" if seconds <= 60 else f"{-(-seconds // 60)} minutes"  # noqa: PLR2004 - a minute


def _unavailable(_error: LanesUnavailable) -> ResponseReturnValue:
    """Refuse while attempts cannot be counted: else an outage would allow guessing."""
    problem = "Nobody can log in while Redis is away. Try again soon."
    return _form(problem), HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(OUTAGE_RETRY_AFTER_S)}


def _is_guarded() -> bool:
    return request.path == PREFIX or request.path.startswith(f"{PREFIX}/") or request.blueprint == rq_dashboard.NAME


def _guard() -> ResponseReturnValue | None:
    """Refuse everybody but the operator, and changes that another site's page asks for."""
    if not _is_guarded():
        return None
    changes = request.method not in CHANGES_NOTHING
    if changes and not _is_from_here():
        raise Forbidden("the request comes from another site")
    if request.endpoint in {"ops.form", "ops.login"}:
        return None
    if TOKEN_FIELD not in session:
        return _ask_to_log_in()
    g.operator = Operator(name=current_app.config["OPS_USER"], role="act")
    if changes and not _has_token():
        abort(HTTPStatus.FORBIDDEN)
    return None


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
    return origin is None or urlsplit(origin).netloc == request.host


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
        policy = DASHBOARD_POLICY if request.blueprint == rq_dashboard.NAME else FORM_POLICY
        response.headers["Content-Security-Policy"] = policy.format(nonce=_nonce())
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
    return response
