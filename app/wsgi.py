"""The application as gunicorn loads it: `gunicorn app.wsgi:app`."""

import atexit
import sys

from flask import Flask

from app import create_app
from worker import telemetry
from worker.bootstrap import open_services
from worker.config import Settings
from worker.errors import ConfigError

APP_LOAD_ERROR = 4
"""Gunicorn's word for "cannot be loaded": its master stops instead of starting the next worker, for ever."""


def _application() -> Flask:
    settings = Settings.from_environment()
    telemetry.configure(settings.log_level, settings.log_format)
    services = open_services(settings)
    atexit.register(services.close)
    return create_app(services)


try:
    app = _application()
except ConfigError as error:
    sys.stderr.write(f"lanekeeper: {error}\n")
    sys.exit(APP_LOAD_ERROR)
