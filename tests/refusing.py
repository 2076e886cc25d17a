"""Redis that says no, in each of the ways in which it can."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import redis

from onelane.dev.embedded import EmbeddedRedis
from onelane.errors import EmbeddedServerError

NODE_TRIES = 5
USER, PASSWORD = "limited", "open sesame"
ALL_ALLOWED = ("~*", "&*", "+@all")
RULES: Mapping[str, tuple[str, ...]] = {
    "no EVALSHA": ("-evalsha",),
    "no SCRIPT": ("-script",),
    "no EVAL, EVALSHA or SCRIPT": ("-eval", "-evalsha", "-script"),
    "no keys of ours": ("resetkeys", "~theirs:*"),
    "a command missing in scripts": ("-zadd",),
    "nothing but PING": ("-@all", "+ping"),
}
"""By what is missing: what an administrator changes of a user who may do everything."""


class Limited:
    """A user of a Redis, whose rights a test takes and gives back."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self._admin = redis.Redis.from_url(server.url)
        self._admin.acl_setuser(USER, enabled=True, reset=True, passwords=[f"+{PASSWORD}"])
        self.allow()
        self._admin.acl_log_reset()
        self.url = f"redis://{USER}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{server.port}/0"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._admin.acl_deluser(USER)
        self._admin.close()

    def allow(self, *but: str) -> None:
        """Allow everything but what the rules `but` take away; the scripts are forgotten, as after a restart."""
        self._rule(*ALL_ALLOWED, *but)
        self._admin.script_flush()

    @property
    def denied(self) -> set[str]:
        """What Redis has refused to the user: commands, keys, channels."""
        return {str(entry["object"]).lower() for entry in self._admin.acl_log() if entry["username"] == USER}

    def change_password(self, to: str) -> None:
        """Change the password, and end the connections that know the old one only."""
        self._rule("resetpass", f">{to}")
        self._admin.execute_command("CLIENT", "KILL", "USER", USER)

    def _rule(self, *rules: str) -> None:
        self._admin.execute_command("ACL", "SETUSER", USER, *rules)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Listen, and answer each thing that a client sends with the same bytes; yields the address."""
    with ExitStack() as sockets, socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(client: socket.socket) -> None:
            with suppress(OSError):
                while client.recv(65_536):
                    client.sendall(answer)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client = sockets.enter_context(listener.accept()[0])
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Run a Redis Cluster of one node that serves every slot; yields its address."""
    with ExitStack() as stack:
        server = _cluster_node(stack, folder)
        with redis.Redis.from_url(server.url) as admin:
            admin.execute_command("CLUSTER", "ADDSLOTSRANGE" if _is_new(admin) else "ADDSLOTS", *_slots(admin))
        yield server.url


def _cluster_node(stack: ExitStack, folder: Path) -> EmbeddedRedis:
    """Start a node. It takes the port 10,000 above its own as well; when that is in use, another node gets others."""
    for nr in range(NODE_TRIES - 1):
        with suppress(EmbeddedServerError):
            return stack.enter_context(EmbeddedRedis(folder / str(nr), settings={"cluster-enabled": "yes"}))
    return stack.enter_context(EmbeddedRedis(folder / "last", settings={"cluster-enabled": "yes"}))


def _is_new(admin: redis.Redis) -> bool:
    return int(str(admin.info("server")["redis_version"]).split(".")[0]) >= 7


def _slots(admin: redis.Redis) -> tuple[int, ...]:
    return (0, 16_383) if _is_new(admin) else tuple(range(16_384))


Refusing = Callable[[ExitStack, EmbeddedRedis, Path], str]


def _by_rule(rules: tuple[str, ...]) -> Refusing:
    def prepare(stack: ExitStack, server: EmbeddedRedis, _folder: Path) -> str:
        limited = stack.enter_context(Limited(server))
        limited.allow(*rules)
        return limited.url

    return prepare


def _wrong_password(stack: ExitStack, server: EmbeddedRedis, _folder: Path) -> str:
    limited = stack.enter_context(Limited(server))
    limited.change_password("another")
    return limited.url


SETTINGS_MEND: Mapping[str, Refusing] = {
    **{name: _by_rule(rules) for name, rules in RULES.items()},
    "no password": lambda _stack, server, _folder: f"redis://127.0.0.1:{server.port}/0",
    "the password of before": _wrong_password,
    "a cluster": lambda stack, _server, folder: stack.enter_context(cluster(folder)),
}
"""What only another setting mends; each returns the address by which Redis refuses."""
RUBBISH: Mapping[str, bytes] = {
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "always OK": b"+OK\r\n",
    "always a number": b":1\r\n",
    "no number": b":many\r\n",
    "an unknown command": b"-ERR unknown command 'HELLO'\r\n",
    "an unknown error": b"-STRANGE things happen\r\n",
    "an error without a word": b"-\r\n",
    "nothing": b"$-1\r\n",
    "a list": b"*2\r\n$1\r\na\r\n:1\r\n",
    "noise": b"\x00\xff\r\n\r\n",
}
"""What is no Redis, or none that we know, by what it answers."""
