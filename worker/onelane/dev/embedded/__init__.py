"""PostgreSQL and Redis out of Python wheels, as our own child processes: no installation, no container.

Their data folders survive everything: a stop, a kill -9 of them or of us, a start by another process later.
A server logs to `<data folder>.log`. Only we, and root, can talk to them: PostgreSQL asks the system who is
at the other end of its socket; Redis wants the password that is part of its URL.
"""

from onelane.dev.embedded.postgres import EmbeddedPostgres
from onelane.dev.embedded.redis import EmbeddedRedis
from onelane.dev.embedded.server import EmbeddedServer

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "EmbeddedServer"]
