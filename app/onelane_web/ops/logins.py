"""Who is logged in: kept in Postgres, so that a logout ends it wherever the cookie is, and Redis may forget all it has.

The browser has a random token in a cookie; the table has the token's digest. What protects forms is made of the token.
"""

import hmac
from datetime import timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, Final

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin

from onelane.errors import StoreUnavailable
from onelane.postgres.db import Database
from onelane_web.ops.operators import Operator, Operators

PREFIX: Final = "/ops"
COOKIE: Final = "onelane_ops"
TOKEN_COOKIE: Final = "_csrf_token"  # noqa: S105 - the name by which rq-dashboard's script looks for it
TOKEN_FIELD: Final = "csrf_token"  # noqa: S105 - the name of a form's field
LOGIN_LASTS: Final = timedelta(hours=12)
TOKEN_MAX: Final = 100
BEGIN: Final = """
WITH old AS (DELETE FROM operator_logins WHERE ends_at < clock_timestamp())
INSERT INTO operator_logins (digest, name, credential, ends_at)
VALUES (%s, %s, %s, clock_timestamp() + %s) ON CONFLICT DO NOTHING
"""
FIND: Final = "SELECT name, credential FROM operator_logins WHERE digest = %s AND ends_at > clock_timestamp()"
END: Final = "DELETE FROM operator_logins WHERE digest = %s"


class Login(dict[str, Any], SessionMixin):
    """Flask's `session`: what a login has, and nothing for who has none."""

    operator: Operator | None = None
    is_unknown: bool = False
    """Postgres did not say."""


class Logins(SessionInterface):
    """All logins."""

    def __init__(self, database: Database, operators: Operators, *, is_secure: bool) -> None:
        self._database = database
        self._operators = operators
        self._is_secure = is_secure

    def begin(self, operator: Operator, response: Response) -> None:
        """Log somebody in, and give the browser what shows it."""
        token = token_urlsafe(32)
        values = (digest_of(token), operator.name, self._operators.credential(operator.name), LOGIN_LASTS)
        self._database.rows(BEGIN, values)
        for name, value in ((COOKIE, token), (TOKEN_COOKIE, _form_token(token))):
            response.set_cookie(
                name,
                value,
                max_age=LOGIN_LASTS,
                path=PREFIX,
                secure=self._is_secure,
                httponly=name == COOKIE,
                samesite="Strict",
            )

    def end(self, request: Request, response: Response) -> None:
        """Log out whoever has this request's token."""
        self._database.rows(END, (digest_of(request.cookies.get(COOKIE, "")),))
        for name in (COOKIE, TOKEN_COOKIE):
            response.delete_cookie(name, path=PREFIX)

    def open_session(self, app: Flask, request: Request) -> Login:  # noqa: ARG002 - Flask's interface
        """Find the login of a request; only those under /ops may have one."""
        token, login = request.cookies.get(COOKIE, ""), Login()
        if not token or len(token) > TOKEN_MAX or not request.path.startswith(PREFIX):
            return login
        try:
            row = self._database.row(FIND, (digest_of(token),))
        except StoreUnavailable:
            login.is_unknown = True
            return login
        login.operator = row and self._operators.still(row.name, bytes(row.credential))
        if login.operator is not None:
            login[TOKEN_FIELD] = _form_token(token)
        return login

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Do nothing: a login begins and ends, and does not change."""


def digest_of(token: str) -> bytes:
    """Return what the table has of a token."""
    return sha256(token.encode(errors="surrogatepass")).digest()


def _form_token(token: str) -> str:
    return hmac.digest(token.encode(errors="surrogatepass"), b"forms", "sha256").hex()
