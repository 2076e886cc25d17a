"""The application as gunicorn loads it: `gunicorn onelane_web.wsgi:app`."""

import atexit
import sys

from flask import Flask

from onelane.bootstrap import open_services, refuse_foreign_lanes, start_tracing
from onelane.config import Settings
from onelane.errors import ConfigError, LanesForeign
from onelane.inbox.fullness import Fullness
from onelane.telemetry import log as telemetry
from onelane_web import create_app

APP_LOAD_ERROR = 4
"""Gunicorn's exit code for "cannot be loaded": its master stops, instead of starting workers for ever."""


def _application() -> Flask:
    settings = Settings.from_environment()
    telemetry.configure(settings.log_level, settings.log_format, is_development=settings.development)
    services = open_services(settings)
    atexit.register(services.close)
    start_tracing(settings, "web")
    refuse_foreign_lanes(services.lanes)
    fullness = Fullness(services.database, settings.backlog_total_max)
    fullness.start()
    return create_app(services, fullness)


try:
    app = _application()
except (ConfigError, LanesForeign) as error:
    sys.stderr.write(f"onelane: {error}\n")
    sys.exit(APP_LOAD_ERROR)
