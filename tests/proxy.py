"""A TCP proxy between a client and a server of ours, with the faults of a network."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qs, urlsplit, urlunsplit

CHUNK = 65_536
CONNECT_S = 5


@dataclass
class Fault:
    """Strikes the `nth` request that contains `match`: its reply, or itself, gets lost, and its connection is cut.

    With `times` more than one it strikes again each `nth` such request.
    """

    match: bytes
    nth: int
    is_before: bool
    """Whether the request gets lost before the server has seen it."""
    times: int = 1

    def __post_init__(self) -> None:
        self.struck = threading.Event()
        self._left = self.nth
        self._counting = threading.Lock()

    def strikes(self, request: bytes) -> bool:
        with self._counting:
            if not self.times or self.match not in request:
                return False
            self._left -= 1
            if self._left:
                return False
            self._left = self.nth
            self.times -= 1
            self.struck.set()
            return True


class Statements:
    """What one connection to Postgres has prepared: later requests name a statement and do not repeat its words."""

    _PREPARED = re.compile(rb"(_pg3_\d+\0)([^\0]+)\0")

    def __init__(self) -> None:
        self._words: dict[bytes, bytes] = {}

    def spelled_out(self, request: bytes) -> bytes:
        """Add to `request` the words of the statements that it names."""
        self._words.update(self._PREPARED.findall(request))
        return request + b"".join(words for name, words in self._words.items() if name in request)


class Link:
    """One connection through a proxy: two sockets, and what has become of the way between them."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.is_doomed = False
        """Whether its next reply gets lost, and the connection with it."""
        self.is_silent = False
        """Whether nothing passes any more, in neither direction, although both ends stay open."""


class Proxy:
    """Passes everything on, until told otherwise."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._links: set[Link] = set()
        self._changing = threading.Lock()
        self._fault: Fault | None = None
        self._passing = threading.Event()
        self._passing.set()
        self._is_refusing = False
        self._is_silencing = False
        self._ended = threading.Event()
        self.delay_s = 0.0
        """How long each chunk of a request is held up."""
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def url(self) -> str:
        """Where clients find the server through this proxy: always on TCP, also a server on a Unix socket."""
        login = self._server.netloc.rpartition("@")[0]
        place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        return urlunsplit(self._server._replace(netloc=f"{login}@{place}" if login else place, query=""))

    def drop_reply(self, match: bytes, nth: int = 1, times: int = 1) -> Fault:
        """Let the server do what the `nth` matching request asks, and cut its connection instead of the reply."""
        self._fault = Fault(match, nth, is_before=False, times=times)
        return self._fault

    def drop_request(self, match: bytes, nth: int = 1, times: int = 1) -> Fault:
        """Cut the connection of the `nth` matching request before the server hears of it."""
        self._fault = Fault(match, nth, is_before=True, times=times)
        return self._fault

    def drop_nothing(self) -> None:
        """Take the fault back, if it has not struck yet."""
        self._fault = None

    def cut(self) -> None:
        """Cut all connections; new ones are welcome."""
        with self._changing:
            links, self._links = self._links, set()
        for link in links:
            _end(link.client)
            _end(link.server)

    def silence(self) -> None:
        """Let the connections that exist go silent for good; new ones are welcome. Nobody is told: none is cut."""
        with self._changing:
            for link in self._links:
                link.is_silent = True

    @contextmanager
    def silencing(self) -> Iterator[None]:
        """Be silent also to those who connect meanwhile: they stay connected to nothing for good, too."""
        self._is_silencing = True
        self.silence()
        try:
            yield
        finally:
            self._is_silencing = False

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Be a server that is away."""
        self._is_refusing = True
        self.cut()
        try:
            yield
        finally:
            self._is_refusing = False

    @contextmanager
    def black_hole(self) -> Iterator[None]:
        """Keep connections open and pass nothing, in neither direction; what was held back is lost with them."""
        self._passing.clear()
        try:
            yield
        finally:
            self.cut()
            self._passing.set()

    def close(self) -> None:
        """End it all."""
        self._ended.set()
        _end(self._listener)
        self._passing.set()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_refusing:
                _end(client)
                continue
            try:
                server = self._connect()
            except OSError:
                _end(client)
                continue
            self._link(client, server)

    def _connect(self) -> socket.socket:
        folder = parse_qs(self._server.query).get("host", [""])[0]
        if not folder:
            server = socket.create_connection((self._server.hostname, self._server.port), timeout=CONNECT_S)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return server
        server = socket.socket(socket.AF_UNIX)
        server.settimeout(CONNECT_S)
        with _ended_on_error(server):
            server.connect(f"{folder}/.s.PGSQL.{parse_qs(self._server.query)['port'][0]}")
        return server

    def _link(self, client: socket.socket, server: socket.socket) -> None:
        server.settimeout(None)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(client, server)
        with self._changing:
            self._links.add(link)
            link.is_silent = self._is_silencing
        for pump in (self._pump_requests, self._pump_replies):
            threading.Thread(target=pump, args=(link,), daemon=True).start()

    def _pump_requests(self, link: Link) -> None:
        """Pass requests on until the client ends; of a silent link that ends the server's side, too."""
        statements = Statements()
        with suppress(OSError):
            while request := link.client.recv(CHUNK):
                self._passing.wait()
                self._ended.wait(self.delay_s)
                if link.is_silent:
                    continue
                spelled_out = statements.spelled_out(request)
                if (fault := self._fault) is not None and fault.strikes(spelled_out):
                    if fault.is_before:
                        break
                    link.is_doomed = True
                link.server.sendall(request)
        self._unlink(link)

    def _pump_replies(self, link: Link) -> None:
        """Pass replies on until the server ends, which the client of a silent link does not learn."""
        with suppress(OSError):
            while reply := link.server.recv(CHUNK):
                self._passing.wait()
                if link.is_silent:
                    continue
                if link.is_doomed:
                    break
                link.client.sendall(reply)
        if not link.is_silent:
            self._unlink(link)

    def _unlink(self, link: Link) -> None:
        with self._changing:
            self._links.discard(link)
        _end(link.client)
        _end(link.server)


@contextmanager
def _ended_on_error(one: socket.socket) -> Iterator[None]:
    try:
        yield
    except OSError:
        one.close()
        raise


def _end(one: socket.socket) -> None:
    """Close a socket that another thread may be waiting on."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
