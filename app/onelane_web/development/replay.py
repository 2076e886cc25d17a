"""The application as `onelane incident` serves it: a header of each request holds the time at which it is accepted.

Only that command's private stack loads this, and outside development it refuses to be loaded: everywhere else the
database's clock decides, and no header changes that.
"""

import atexit
from datetime import datetime

from flask import Flask, request

from onelane.bootstrap import open_services
from onelane.config import Settings
from onelane.dev.incident.timeline import TIME_HEADER
from onelane.errors import ConfigError
from onelane.telemetry import log as telemetry
from onelane_web import create_app


def application() -> Flask:
    """Make the application; raise ConfigError outside development."""
    settings = Settings.from_environment()
    if not settings.development:
        raise ConfigError("DEVELOPMENT: must be true, since requests set the time here")
    telemetry.configure(settings.log_level, settings.log_format)
    services = open_services(settings, now=_time_of_request)
    atexit.register(services.close)
    return create_app(services)


def _time_of_request() -> datetime | None:
    """Read the request's own time; without one, the database's clock decides."""
    given = request.headers.get(TIME_HEADER)
    return datetime.fromisoformat(given) if given else None
