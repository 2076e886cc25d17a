"""The web as a run serves it: `gunicorn -c python:onelane_web.gunicorn_settings tests.chaos.service.web:app`.

Like `onelane_web.wsgi:app`, with the recording (and a planted bug, if the run has one) put in before. Needs
CHAOS_HISTORY.
"""

from tests.chaos.service import recording

recording.install("web")

from onelane_web.wsgi import app  # noqa: E402 - what is recorded must be wrapped before it is imported

__all__ = ["app"]
