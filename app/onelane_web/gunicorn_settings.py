"""How gunicorn serves the web, from any folder: `-c python:onelane_web.gunicorn_settings onelane_web.wsgi:app`.

`WEB_CONCURRENCY` (processes) and `PORT` come from the environment. A body's size is limited by the application
(`BODY_MAX_BYTES`), because gunicorn would have to read it to know.
"""

import os
import signal
from typing import Any

from gunicorn.glogging import Logger

from onelane.garbage import keep_what_is_loaded
from onelane.telemetry.log import configure_by_environment
from onelane_web.few_lines import FewLines

# 8000 as in onelane/config.py, which also refuses a PORT that is not a number. On all addresses: a router stands in
# front. `onelane run` binds 127.0.0.1 instead.
bind = f"0.0.0.0:{os.environ.get('PORT') or 8000}"

# A request waits for Postgres and Redis and computes little: threads. WEB_CONCURRENCY is gunicorn's own variable.
# Clients hold no thread: docs/DESIGN.md compares other kinds of workers. Descriptors may allow fewer connections.
worker_class = "onelane_web.serving.worker.LoopWorker"
threads = 4
worker_connections = 4_000

# Below 30 s: then routers give up, and platforms kill a process that they have asked to stop.
timeout = 25
graceful_timeout = 20

# Routers keep idle connections for 90 s. The side that sends requests must close first: else a webhook may be sent on a
# connection that is being closed.
keepalive = 95

# Gunicorn's heartbeat is a file that each process touches; on a disk that hangs they would seem dead.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - made with mkstemp

# The socket for gunicorn's control tool is not used here, and would need a folder in HOME.
control_socket_disable = True


class OneLog(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """Hands gunicorn's records to our log, where all lines have one format and no request is quoted."""

    def setup(self, cfg: Any) -> None:
        """Remove gunicorn's own handlers. The log is configured from the environment until the settings are read."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        configure_by_environment()
        self._few_lines = FewLines()

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Log no request, whatever GUNICORN_CMD_ARGS asks for: its line may hold a token."""

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log what a stranger sent that is no request a few times."""
        if not msg.startswith("Invalid request") or self._few_lines.allow("gunicorn"):
            super().warning(msg, *args, **kwargs)


logger_class = OneLog


def post_worker_init(_worker: Any) -> None:
    """Begin to serve, with the application loaded."""
    keep_what_is_loaded()


def on_exit(_server: Any) -> None:
    """Ignore a second SIGTERM at the very end, when Python handles none: it would change the exit code."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
