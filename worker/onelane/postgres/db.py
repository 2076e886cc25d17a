"""Postgres: calls that are safe to repeat, and a deadline for each.

Every call is one statement in autocommit, most of them one SQL function. All of them may run twice (a lost reply
leaves it open whether they ran), so a call whose connection broke is tried once more on a fresh one. A deadline covers
all of it: the wait for a connection, the making of one, both tries. The server's own time-outs are shorter than the
usual deadline. A call with a shorter one that has no answer makes the server suspect, and a probe finds out the rest.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from threading import BoundedSemaphore
from typing import Any, Final

import psycopg
from psycopg.types.json import Jsonb

from onelane import forks
from onelane.errors import StoreAway, StoreDenied, StoreUnavailable
from onelane.model import JsonObject
from onelane.postgres.breaker import Breaker
from onelane.postgres.connection import SETTINGS, STATEMENT_TIMEOUT_S, Connection, Row, Watchdog
from onelane.postgres.faults import POOLER, Unanswered, is_away, is_worth_repeating, refusal, sqlstate_of
from onelane.postgres.pool import Pool
from onelane.postgres.pooled import connector

Params = Sequence[Any] | Mapping[str, Any] | None
Ask = Callable[[str, tuple[Any, ...]], Row | None]
"""Runs one statement, as `Database.row`; another does more with it than that."""
OnNotice = Callable[[str, str], None]

FIRST_TRY: Final = 0.6
"""Which part of a call's deadline its first try may use: of the usual one more than the server's statement_timeout."""
PROBE_DEADLINE_S: Final = 2.0
PROBE: Final = "SELECT probe() FROM set_config('lock_timeout', '500ms', true)"
"""A server that tells of a lock is there: a probe waits for less than its deadline."""
TRANSACTION_MAX_S: Final = 120.0
LOCK_QUEUE_S: Final = 1.0
"""How long a call waits until it may wait for a lock."""
AT_ONCE: Final = "SELECT {function}(%s, false) AS answers FROM set_config('lock_timeout', '50ms', true)"
PATIENTLY: Final = "SELECT {function}(%s, true) AS answers FROM set_config('lock_timeout', '500ms', true)"


class Database:
    """One database, over a pool of connections."""

    def __init__(
        self,
        url: str,
        *,
        pooler: str | None = None,
        pool_max: int = 8,
        deadline_s: float = 10,
        wait_s: float = 2,
        on_notice: OnNotice = lambda _name, _detail: None,
    ) -> None:
        """Prepare a pool of at most `pool_max` connections; nothing connects before it is needed.

        `pooler` is PG_POOLER: what stands between them and the server.
        A call without an answer for `deadline_s`, or without a connection for `wait_s`, raises StoreUnavailable.
        `on_notice` gets the name and the JSON of what SQL functions report beside their answer, once the call has
        succeeded.
        """
        self._deadline_s = deadline_s
        self._wait_s = wait_s
        self._on_notice = on_notice
        self._watchdog = Watchdog()
        self._pool = Pool(connector(url, pooler), pool_max)
        self._lock_waits = BoundedSemaphore(max(1, pool_max // 2))
        """Who waits for locks of others leaves half of the pool to those who need none."""
        self.breaker = Breaker(self.probe)

    def row(self, query: str, params: Params = None, *, within_s: float | None = None) -> Row | None:
        """Run one statement and return its first row, or None when there is none."""
        rows = self.rows(query, params, within_s=within_s)
        return rows[0] if rows else None

    def rows(self, query: str, params: Params = None, *, within_s: float | None = None) -> list[Row]:
        """Run one statement, safe to repeat, and return its rows, within the usual deadline or another.

        Raise StoreUnavailable for what is not the statement's fault, and psycopg.Error for what is.
        """
        return self._within(self._deadline_s if within_s is None else within_s, query, params)

    def ask(
        self, function: str, items: Sequence[JsonObject], *, waits: bool = False, within_s: float | None = None
    ) -> list[JsonObject]:
        """Call a SQL function that takes a list and answers one, in the same order; `within_s` is another deadline.

        An item whose row somebody holds is `skipped`; with `waits` it is waited for, half a second at most, and by
        few at a time. Raise StoreUnavailable, or StoreRefused for a list that cannot be stored.
        """
        query = (PATIENTLY if waits else AT_ONCE).format(function=function)
        within_s = self._deadline_s if within_s is None else within_s
        ends = time.monotonic() + within_s
        with self._waiting_for_locks(within_s) if waits else nullcontext():
            for _ in range(2):
                try:
                    rows = self._within(ends - time.monotonic(), query, (Jsonb(list(items)),))
                except psycopg.Error as error:
                    raise refusal(sqlstate_of(error)) from error
                answers: list[JsonObject] = rows[0].answers if rows else []
                away = [answer["sqlstate"] for answer in answers if _is_away(answer)]
                if not away:
                    break
                self._pool.forget_all()  # another connection may lead to the right server
            else:
                self.breaker.open(str(refusal(away[0])))
        return answers

    def asks(self, function: str) -> Callable[[Sequence[JsonObject], bool], list[JsonObject]]:
        """Return `ask` of one function, by items and whether it waits."""
        return lambda items, waits: self.ask(function, items, waits=waits)

    def ping(self) -> None:
        """Raise StoreUnavailable unless Postgres answers, under the settings that we ask for."""
        row = self.row("SELECT current_setting('statement_timeout') AS statement_timeout")
        if row is None or row.statement_timeout != SETTINGS["statement_timeout"]:
            raise StoreDenied(f"no connection to Postgres: {POOLER}")

    def probe(self) -> None:
        """Raise StoreUnavailable unless Postgres takes writes, StoreAway if it is away; nothing of it stays."""
        try:
            self._tried(PROBE_DEADLINE_S, PROBE, None)
        except Unanswered as error:
            self._pool.forget_all()
            raise StoreAway("Postgres is away: a probe had no answer") from error
        except psycopg.Error as error:
            raise StoreUnavailable(f"the probe failed: SQLSTATE {error.sqlstate}") from error

    @contextmanager
    def transaction(self, deadline_s: float = TRANSACTION_MAX_S) -> Iterator[psycopg.Connection[Row]]:
        """Lend a connection inside a transaction, for migrations and diagnostics; never for a turn."""
        try:
            with (
                self._pool.connection(self._wait_s, self._deadline_s) as connection,
                self._watched(connection, deadline_s),
                connection.begun(),
            ):
                yield connection
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction) as error:
            raise StoreUnavailable(f"Postgres did not answer: {type(error).__name__}") from error

    def close(self) -> None:
        """Give all connections back."""
        self._pool.close()
        self._watchdog.stop()

    def _within(self, deadline_s: float, query: str, params: Params) -> list[Row]:
        try:
            return self._tried(deadline_s, query, params)
        except Unanswered as error:
            if deadline_s * FIRST_TRY < STATEMENT_TIMEOUT_S:
                self.breaker.suspect()
                raise
            self._pool.forget_all()
            self.breaker.open(str(error))
            raise StoreAway(str(error)) from error
        except StoreAway as error:
            self.breaker.open(str(error))
            raise

    def _tried(self, deadline_s: float, query: str, params: Params) -> list[Row]:
        """Run a statement, once more if it may succeed at once; raise StoreUnavailable for what is not its fault."""
        if forks.is_child():
            raise StoreUnavailable("a handler's forked child has no connection to Postgres")
        ends, is_new = time.monotonic() + deadline_s, False
        try:
            try:
                return self._once(query, params, ends, deadline_s * FIRST_TRY)
            except Unanswered:
                is_new = True
            except psycopg.Error as error:
                if not is_worth_repeating(sqlstate_of(error)):
                    raise
            return self._once(query, params, ends, deadline_s, is_new=is_new)
        except psycopg.Error as error:
            translated = refusal(sqlstate_of(error))
            if isinstance(translated, StoreAway):
                raise translated from error
            if isinstance(translated, StoreUnavailable) and not isinstance(error, psycopg.ProgrammingError):
                raise translated from error
            raise

    def _once(self, query: str, params: Params, ends: float, within_s: float, *, is_new: bool = False) -> list[Row]:
        """Run a statement. With `is_new`, an older connection had no answer: if a new one has, that was its fault."""
        if (left_s := ends - time.monotonic()) <= 0:
            raise Unanswered("no answer from Postgres in time")
        with self._pool.connection(self._wait_s, left_s, is_new=is_new) as connection:
            connection.kept_notices.clear()
            try:
                with self._watched(connection, min(within_s, ends - time.monotonic())):
                    cursor = connection.run(query, params)
            except psycopg.Error as error:
                if is_away(sqlstate_of(error)):
                    self._pool.forget(connection)
                raise
            if is_new:
                self._pool.forget_older(connection)
            rows = cursor.fetchall() if cursor.rownumber is not None else []
            notices = connection.kept_notices.copy()
        for name, detail in notices:
            self._on_notice(name, detail)
        return rows

    @contextmanager
    def _watched(self, connection: Connection, within_s: float) -> Iterator[None]:
        """Cut `connection` after so many seconds; raise Unanswered for what ends by that."""
        was_cut = False
        self._watchdog.watch(connection, within_s)
        try:
            try:
                yield
            finally:
                was_cut = self._watchdog.release(connection)
        except psycopg.OperationalError as error:
            if was_cut and error.sqlstate is None:
                raise Unanswered("no answer from Postgres in time") from error
            raise
        finally:
            if was_cut:
                connection.close()

    @contextmanager
    def _waiting_for_locks(self, within_s: float) -> Iterator[None]:
        if not self._lock_waits.acquire(timeout=min(LOCK_QUEUE_S, within_s)):
            raise StoreUnavailable("too many wait for locks that others hold")
        try:
            yield
        finally:
            self._lock_waits.release()


def _is_away(answer: JsonObject) -> bool:
    return answer["outcome"] == "refused" and is_away(answer["sqlstate"])


Clock = Callable[[], Any]
"""Answers the time of acceptance, or None for the database's clock, which is the rule."""


def database_clock() -> None:
    """Leave the time to the database."""
