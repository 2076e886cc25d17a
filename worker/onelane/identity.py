"""Which deployment this is: the id of its database, by which its lanes in Redis are known."""

import threading
from typing import Final

import psycopg

from onelane.errors import LanesUnavailable, StoreUnavailable
from onelane.postgres.db import Database

READ_MAX_S: Final = 10.0
"""As long as one call to the database: who waits for another's reading waits no longer than for an own one."""


class Identity:
    """The id that the first migration gave the database. A restored or copied database has that of the original."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._id = ""
        self._reading = threading.Lock()
        """Lets one thread read it, and the others wait for that one."""

    def id(self) -> str:
        """Return the id, read when it is first needed: no process uses lanes before it knows whose they are."""
        if not self._id:  # once it is known it stays
            if not self._reading.acquire(timeout=READ_MAX_S):
                raise LanesUnavailable("whose lanes these are is not known yet: Postgres does not answer")
            try:
                self._id = self._id or self._read()
            finally:
                self._reading.release()
        return self._id

    def _read(self) -> str:
        try:
            row = self._database.row("SELECT id FROM deployment")
        except StoreUnavailable as error:
            raise LanesUnavailable(f"whose lanes these are is not known yet: {error}") from error
        except psycopg.errors.UndefinedTable as error:
            raise LanesUnavailable("whose lanes these are is not known yet: onelane migrate") from error
        if row is None:
            raise LanesUnavailable("the database has lost its id: INSERT INTO deployment DEFAULT VALUES")
        return str(row.id)
