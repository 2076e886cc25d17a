"""A real PgBouncer in transaction mode before a server of ours, and what a transaction may have left behind it."""

import os
import shutil
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from onelane.dev.embedded.redis import free_port
from tests.proxy import Proxy

LEFT_BEHIND = """
SELECT 'setting', name FROM pg_settings
 WHERE source = 'session' AND NOT starts_with(name, 'transaction_')
   AND name NOT IN ('application_name', 'client_encoding', 'standard_conforming_strings', 'DateStyle', 'TimeZone')
UNION ALL SELECT 'prepared statement', name FROM pg_prepared_statements
UNION ALL SELECT 'cursor', name FROM pg_cursors WHERE name <> ''
UNION ALL SELECT 'channel', pg_listening_channels()
UNION ALL SELECT 'advisory lock', objid::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'temporary table', relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'
"""
"""Whatever belongs to a session, beside what PgBouncer itself keeps for its clients, and what is its transaction's."""
SERVER_LOGIN_RETRY_S = 0.1
START_S = 60


def find() -> str | None:
    """Find PgBouncer, if it is installed."""
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


def program() -> str:
    """Find PgBouncer. Without one, tests say what to install; where nobody would read that, they fail."""
    path = find()
    if path is None:
        needed = "no PgBouncer: apt-get install pgbouncer"
        if os.environ.get("CI"):
            pytest.fail(needed)
        pytest.skip(needed)
    return path


class Pooler:
    """PgBouncer; it reaches the server through `behind`, a proxy, which can be a server that is away."""

    def __init__(self, folder: Path, url: str, *, connections: int = 1, **settings: object) -> None:
        """Prepare one that makes so many `connections` to each database; `settings` are those of pgbouncer.ini."""
        self.behind = Proxy(url)
        self._program = program()
        self._server = urlsplit(url)
        self._port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        place = urlsplit(self.behind.url)
        values = {
            "listen_addr": "127.0.0.1",
            "listen_port": self._port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": connections,
            "max_client_conn": 1_000,
            "server_login_retry": SERVER_LOGIN_RETRY_S,
            **settings,
        }
        self._settings = folder / "pgbouncer.ini"
        self._settings.write_text(
            f"[databases]\n* = host={place.hostname} port={place.port} user=postgres\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in values.items())
        )

    @property
    def url(self) -> str:
        """Where clients find the database that the server's own address names."""
        return self.url_of(self._server.path.strip("/"))

    def url_of(self, database: str) -> str:
        """Where clients find another database of that server."""
        return urlunsplit(("postgresql", f"postgres@127.0.0.1:{self._port}", f"/{database}", "", ""))

    @property
    def pid(self) -> int:
        """Its process, once it was started."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.launch()
        ends = time.monotonic() + START_S
        while not self._listens():
            assert time.monotonic() < ends, "PgBouncer does not listen"
            time.sleep(0.01)

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
        with (self._folder / "pgbouncer.log").open("ab") as log:
            self._process = subprocess.Popen([self._program, *as_user, str(self._settings)], stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill it, with all that its clients have under way."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_S)

    def left_behind(self) -> list[tuple[str, str]]:
        """Name what earlier transactions left in a session of the server: with one connection, the session of all."""
        with closing(psycopg.connect(self.url, autocommit=True, prepare_threshold=None)) as connection:
            return connection.execute(LEFT_BEHIND).fetchall()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.behind.close()

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "pgbouncer.log").read_text()
        try:
            psycopg.connect(self.url, connect_timeout=START_S).close()
        except psycopg.OperationalError as error:
            return "Connection refused" not in str(error)
        return True
