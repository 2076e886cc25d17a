"""How the scripts in `lua/` are run: loaded when needed, in one round trip, once more if their reply was lost.

The client retries nothing by itself: a command whose reply was lost has perhaps run. What may run twice (all scripts,
all reads) is asked once more on a fresh connection if its own broke: a lost reply costs a round trip, not a lease's
life. What ran out of time is not: whoever waits for it has waited long enough.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from hashlib import sha1
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import UUID

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from onelane import forks, keys
from onelane.errors import LanesDenied, LanesUnavailable
from onelane.lanes.connections import pool_arguments
from onelane.lanes.gathering import Call, Gathering, Read, awaited
from onelane.lanes.listing import listed
from onelane.lanes.prefixed import PrefixedRedis, prefix_of
from onelane.lanes.refusals import FOREIGN, translated

SCRIPTS = Path(__file__).parent / "lua"


def connect(
    url: str,
    *,
    timeout_s: float,
    wait_s: float,
    connections_max: int,
    verify_tls: bool = True,
    ca_file: str | None = None,
    prefix: str = "",
) -> redis.Redis:
    """Open a client that never repeats a command by itself, and puts `prefix` in front of all keys.

    It waits `timeout_s` for Redis, and `wait_s` for one of its own connections to be free.
    """
    tls = {"ssl_cert_reqs": "required" if verify_tls else "none", "ssl_ca_certs": ca_file}
    pool = redis.BlockingConnectionPool.from_url(
        **pool_arguments(url, tls),
        max_connections=connections_max,
        timeout=wait_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        client_name="onelane",
        redis_connect_func=_on_connect,
    )
    return PrefixedRedis.of(pool, prefix)


def _on_connect(connection: Any) -> None:
    forks.keep_from_children(connection._sock)  # noqa: SLF001 - redis-py has no other name for it
    connection.on_connect()


class Owner:
    """The database whose lanes they are, of both kinds."""

    def __init__(self, database_id: Callable[[], str] = lambda: "") -> None:
        """`database_id` answers its id; an empty one lets the lanes be anybody's."""
        self.database_id = database_id
        self.may_claim = 1
        """0 once the lanes were another's; nobody sets it back."""


class Scripts:
    """The scripts of one folder, for one kind of lane, on one Redis. Without an `owner` the lanes may be anybody's."""

    def __init__(self, client: redis.Redis, folder: Path, kind: str = keys.IN, owner: Owner | None = None) -> None:
        self.client = client
        self._gathering = Gathering(self._run_gathered)
        self.owner = owner or Owner()
        texts = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.lua")}
        prelude = texts.pop("prelude").replace("@KIND@", kind).replace("@QUEUE@", keys.QUEUE_PREFIXES[kind])
        prelude = prelude.replace("@PREFIX@", prefix_of(client))
        self._texts = {name: prelude + text for name, text in texts.items()}
        self._digests = {
            name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self._texts.items()
        }

    def run(self, name: str, *args: Any) -> Any:
        """Run one script, together with those that other threads ask for at the moment."""
        return self._gathering.ask((name, args))

    def submit(self, read: Callable[[Any], Read], name: str, *args: Any) -> Future[Read]:
        """Run one script soon, with those that others ask for at the moment; never waits. `read` reads its answer."""
        return self._gathering.submit((name, args), read)

    def run_many(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one round trip; load those that this server does not know yet."""
        answers = self.run_each(calls)
        for answer in answers:
            if isinstance(answer, redis.exceptions.ResponseError):
                raise answer
        return answers

    def run_each(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one round trip. One that fails answers its error, and the others theirs."""
        answers: list[Any] = []
        for answer in self._gathering.ask_all(calls):
            try:
                answers.append(awaited(answer))
            except LanesUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - this call's own
                answers.append(error)
        return answers

    def ask(self, call: Callable[[], Any]) -> Any:
        """Ask what may be asked twice: once more if the connection broke."""
        try:
            return self.ask_once(call)
        except LanesUnavailable as error:
            if not _was_cut(error.__cause__):
                raise
        return self.ask_once(call)

    def ask_ours(self, key: str, read: Callable[[], Any]) -> Any:
        """Read a key of ours. Under another type it was written by somebody else, and is removed, as scripts do it."""
        try:
            return self.ask(read)
        except redis.exceptions.ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
        self.ask(lambda: self.client.delete(key))
        return self.ask(read)

    def ask_once(self, call: Callable[[], Any]) -> Any:
        """Ask once; raise LanesUnavailable unless what is wrong concerns this call alone."""
        try:
            return call()
        except Exception as error:
            if (outage := translated(error)) is error:
                raise
            raise outage from error

    def setting(self, section: str, field: str, name: str | None = None) -> Any:
        """Read a field of INFO, else CONFIG's `name`; None when the host forbids it, as many do."""
        info = self._if_allowed(lambda: self.client.info(section)) or {}
        if field not in info and name is not None:
            return (self._if_allowed(lambda: self.client.config_get(name)) or {}).get(name)
        return info.get(field)

    def _if_allowed(self, call: Callable[[], Any]) -> Any:
        try:
            return self.ask(call)
        except (redis.exceptions.ResponseError, LanesDenied):
            return None

    def _run_known_or_load(self, calls: Sequence[Call]) -> list[Any]:
        answers = self._execute(calls)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, redis.exceptions.NoScriptError)]
        if unknown:  # not run, so running it now is no repetition
            for name in {calls[i][0] for i in unknown}:
                self.client.script_load(self._texts[name])
            for i, answer in zip(unknown, self._execute([calls[i] for i in unknown]), strict=True):
                answers[i] = answer
        return answers

    def _run_gathered(self, calls: Sequence[Call]) -> list[Any]:
        """Run the scripts of several threads. A full Redis refuses some and runs others: each gets its own answer."""
        return [translated(answer) for answer in self.ask(lambda: self._run_known_or_load(calls))]

    def _execute(self, calls: Sequence[Call]) -> list[Any]:
        pipeline, owner = self.client.pipeline(transaction=False), (self.owner.may_claim, self.owner.database_id())
        sent = listed(calls)
        for one in sent:
            pipeline.evalsha(self._digests[one.name], 0, *map(_argument, one.arguments()), *owner)
        answers: list[Any] = len(calls) * [None]
        for one, answer in zip(sent, pipeline.execute(raise_on_error=False), strict=True):
            if _is_foreign(answer):
                self.owner.may_claim = 0
            for place, its_own in zip(one.places, one.answers(answer), strict=True):
                answers[place] = its_own
        return answers


def _was_cut(error: BaseException | None) -> bool:
    """Distinguish a connection that broke from an answer that took too long, and from a pool that has none to lend."""
    return isinstance(error, redis.exceptions.ConnectionError) and not isinstance(error.__context__, Empty)


def _is_foreign(answer: Any) -> bool:
    return isinstance(answer, redis.exceptions.ResponseError) and str(answer).startswith(FOREIGN)


def text_of(value: bytes | str) -> str:
    """Decode what Redis answers; bytes that are no UTF-8 are replaced."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _argument(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value
