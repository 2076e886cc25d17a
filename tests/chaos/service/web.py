"""The web as a run serves it: `gunicorn -c python:app.gunicorn_settings tests.chaos.service.web:app`.

Like `app.wsgi:app`, with the recording (and a planted bug, if the run has one) put in before. Needs CHAOS_HISTORY.
"""

from tests.chaos.service import recording

recording.install("web")

from app.wsgi import app  # noqa: E402 - a planted bug must be there before anything is wired

__all__ = ["app"]
