"""The web: thin, and the only place that knows Flask."""

import traceback

from flask import Flask, Response, json, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from onelane.bootstrap import Services
from onelane.telemetry.log import event, name_request
from onelane_web import health, webhook
from onelane_web import metrics as numbers
from onelane_web.development import replies
from onelane_web.ops import login as ops


def create_app(services: Services) -> Flask:
    """Make the WSGI application; raise ConfigError when a channel's secrets cannot be used."""
    settings = services.settings
    app = Flask(__name__, static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=settings.body_max_bytes,
        MAX_FORM_MEMORY_SIZE=settings.body_max_bytes,
    )
    app.url_map.merge_slashes = False  # a provider whose address is misspelt is told so, not sent elsewhere
    app.before_request(_name_request)
    app.register_blueprint(webhook.blueprint(services))
    app.register_blueprint(health.blueprint(services))
    if settings.development or settings.metrics_token:
        app.register_blueprint(numbers.blueprint(services))
    if settings.development:
        app.register_blueprint(replies.blueprint(services))
    if settings.ops_password:
        ops.install(app, services, settings.ops_password)
    app.register_error_handler(HTTPException, _in_json)
    app.register_error_handler(Exception, _failed)
    _believe_proxies(app, settings.proxy_hops)
    return app


def _name_request() -> None:
    name_request(request.headers.get("X-Request-ID"))


def _in_json(error: HTTPException) -> Response:
    """Word Flask's own refusals as ours are; their headers (`Allow`) stay."""
    response = Response(json.dumps({"error": error.name.lower()}), error.code, error.get_headers())
    response.content_type = "application/json"
    return response


def _failed(error: Exception) -> tuple[Response, int]:
    """Log a bug by its type and its place: the text of an error may quote a message."""
    frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    event("request_failed", error=type(error).__name__, frames=frames)
    return jsonify(error="internal error"), 500


def _believe_proxies(app: Flask, hops: int) -> None:
    """Take the caller's address from what the nearest `hops` proxies say; some providers sign it."""
    if hops:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # Flask's documented way to wrap it
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops, x_port=hops
        )
