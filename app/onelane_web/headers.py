"""What every answer tells browsers, whoever made it: it is data, it is nobody's page, and it is kept nowhere."""

from typing import Final

from flask import Flask, Response

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
"""Pages for people have others in their place."""


def install(app: Flask) -> None:
    """Add them to all answers of the application; first of all that does so, and therefore the last to be asked."""
    app.after_request(_completed)


def _completed(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
