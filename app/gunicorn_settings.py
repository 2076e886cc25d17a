"""How gunicorn serves the web: `gunicorn -c python:app.gunicorn_settings app.wsgi:app`, from any folder.

`WEB_CONCURRENCY` (processes) and `PORT` come from the environment. A body's size is limited by the application
(`BODY_MAX_BYTES`), because gunicorn would have to read it to know.
"""

import os

# 8000 as in worker/config.py, which also says what is wrong with a PORT that is no number. All addresses: a router
# in front decides who comes in. `lanekeeper run` binds 127.0.0.1 instead.
bind = f"0.0.0.0:{os.environ.get('PORT') or 8000}"

# A request waits for Postgres and Redis and computes little: threads. WEB_CONCURRENCY is gunicorn's own variable.
worker_class = "gthread"
threads = 4

# Below the 30 s after which routers give up, and platforms kill what they asked to stop.
timeout = 25
graceful_timeout = 20

# The socket for gunicorn's control tool: nobody here uses it, and it would need a folder in HOME.
control_socket_disable = True
