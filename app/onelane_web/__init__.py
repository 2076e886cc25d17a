"""The web: thin, and the only package that imports Flask."""

from flask import Flask, Response, json, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from onelane.bootstrap import Services
from onelane.inbox.fullness import Fullness
from onelane.telemetry.log import name_request
from onelane_web import headers, health, metrics, say, webhook
from onelane_web.development import replies, trying
from onelane_web.failure import report
from onelane_web.ops import login


def create_app(services: Services, fullness: Fullness | None = None) -> Flask:
    """Make the WSGI application; raise ConfigError when a channel's secrets cannot be used.

    `fullness` is what counts the messages that wait, and has been started; without it none are counted.
    """
    settings = services.settings
    fullness = fullness or Fullness(services.database, settings.backlog_total_max)
    app = Flask(__name__, static_folder=None)
    app.debug = False  # whatever FLASK_DEBUG says, which may be set for another project
    app.config.update(
        MAX_CONTENT_LENGTH=settings.body_max_bytes,
        MAX_FORM_MEMORY_SIZE=settings.body_max_bytes,
    )
    app.url_map.merge_slashes = False  # a misspelt address answers 404 instead of redirecting
    app.before_request(_name_request)
    headers.install(app)
    app.register_blueprint(webhook.blueprint(services, fullness))
    app.register_blueprint(health.blueprint(services, fullness))
    if settings.say_secret:
        app.register_blueprint(say.blueprint(services, settings.say_secret))
    if settings.development or settings.metrics_token:
        app.register_blueprint(metrics.blueprint(services, fullness))
    if settings.development:
        app.register_blueprint(replies.blueprint(services))
        app.register_blueprint(trying.blueprint(services))
    if settings.ops_password or settings.ops_users:
        login.install(app, services)
    app.register_error_handler(HTTPException, _in_json)
    app.register_error_handler(Exception, _failed)
    _trust_proxies(app, settings.proxy_hops)
    return app


def _name_request() -> None:
    name_request(request.headers.get("X-Request-ID"))


def _in_json(error: HTTPException) -> Response:
    """Answer Flask's own refusals in JSON, as ours are; their headers (`Allow`) stay."""
    response = Response(json.dumps({"error": error.name.lower()}), error.code, error.get_headers())
    response.content_type = "application/json"
    return response


def _failed(error: Exception) -> tuple[Response, int]:
    report(error)
    return jsonify(error="internal error"), 500


def _trust_proxies(app: Flask, hops: int) -> None:
    """Take our address, which some providers sign, and the caller's from the headers of the nearest `hops` proxies."""
    if hops:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # Flask's documented way to wrap it
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops, x_port=hops
        )
