"""TLS to Redis and Postgres, with certificates that nobody but this test has signed.

The servers in the wheels speak no TLS: a front does it for them, as a host's proxy would.
"""

import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from select import select
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from onelane.bootstrap import Services, open_services
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.errors import StoreUnavailable
from tests.conftest import DEADLINE_S, ROOT, RunWorker, deliver, eventually
from tests.processes import environment
from tests.rows import Rows

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""How a client of Postgres asks whether it may speak TLS; the answer is one letter."""


class Front:
    """Speaks TLS with clients, and none with the server behind it."""

    def __init__(self, certificate: trustme.LeafCert, server: tuple[str, int] | str, *, asks: bool = False) -> None:
        """`asks`: clients begin in the clear and ask for TLS, as those of Postgres do."""
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self._context)
        self._server = server
        self._asks = asks
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.encrypted = 0
        """How many connections have agreed on TLS."""
        self._threads = [threading.Thread(target=self._accept, name="front")]
        self._threads[0].start()

    def close(self) -> None:
        """Wait for the clients to leave, who have to go first."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), name="front", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self._asks:
                if client.recv(len(SSL_REQUEST), socket.MSG_WAITALL) != SSL_REQUEST:
                    return
                client.sendall(b"S")
            with self._context.wrap_socket(client, server_side=True) as secret, self._connected() as server:
                self.encrypted += 1
                _relay(secret, server)

    def _connected(self) -> socket.socket:
        server = socket.socket(socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET)
        server.connect(self._server)
        return server


def _relay(secret: ssl.SSLSocket, server: socket.socket) -> None:
    """Pass on what comes, in one thread: an SSLSocket is not for two."""
    while True:
        for source in [secret] if secret.pending() else select([secret, server], [], [])[0]:
            if not (chunk := source.recv(65_536)):
                return
            (server if source is secret else secret).sendall(chunk)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.LeafCert, Path]:
    """Make a certificate for this machine, and the file by which it can be verified."""
    authority, file = trustme.CA(), tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return authority.issue_cert("127.0.0.1"), file


@pytest.fixture
def redis_front(ca: tuple[trustme.LeafCert, Path], redis_server: Any) -> Iterator[Front]:
    front = Front(ca[0], ("127.0.0.1", redis_server.port))
    yield front
    front.close()


@pytest.fixture
def postgres_front(ca: tuple[trustme.LeafCert, Path], postgres: Any) -> Iterator[Front]:
    place = parse_qs(urlsplit(postgres.url).query)
    front = Front(ca[0], f"{place['host'][0]}/.s.PGSQL.{place['port'][0]}", asks=True)
    yield front
    front.close()


@pytest.fixture
def over_tls(settings: Settings, redis_front: Front, postgres_front: Front) -> Callable[..., Settings]:
    """Word the settings with both servers behind their fronts."""

    def over_tls(query: str, **changes: object) -> Settings:
        password = urlsplit(settings.redis_url).password
        urls = {
            "redis_url": f"rediss://:{password}@127.0.0.1:{redis_front.port}/0",
            "database_url": f"postgresql://postgres@127.0.0.1:{postgres_front.port}/postgres?{query}",
        }
        return settings.model_copy(update={**urls, **changes})

    return over_tls


@pytest.mark.parametrize("is_verified", [True, False], ids=["verified", "not verified"])
def test_a_message_goes_all_the_way_over_tls(
    rows: Rows,
    is_verified: bool,
    over_tls: Callable[..., Settings],
    ca: tuple[trustme.LeafCert, Path],
    services: Services,
    run_worker: RunWorker,
    redis_front: Front,
    postgres_front: Front,
) -> None:
    settings = (
        over_tls(f"sslmode=verify-full&sslrootcert={ca[1]}", redis_tls_ca_file=ca[1])
        if is_verified
        else over_tls("sslmode=require", redis_tls_verify=False)
    )
    web = open_services(settings)
    with run_worker(settings):
        deliver(web, [Delivery(senders=("alice",), external_id="1", text="hello over TLS")])
        eventually(rows.answered)
    web.close()
    assert redis_front.encrypted >= 2  # the web's and the worker's
    assert postgres_front.encrypted >= 2


def test_redis_certificate_that_nobody_vouches_for_is_refused_in_one_line(over_tls: Callable[..., Settings]) -> None:
    said = _refusal(over_tls("sslmode=require"))
    assert said.startswith("onelane: Redis' certificate is not trusted (")
    assert "REDIS_TLS_CA_FILE" in said
    assert "REDIS_TLS_VERIFY=false" in said


@pytest.fixture
def of_another(tmp_path: Path) -> str:
    """The query of an address that trusts somebody else than who signed our certificate."""
    other, file = trustme.CA(), tmp_path / "other.pem"
    other.cert_pem.write_to_path(str(file))
    return f"sslmode=verify-full&sslrootcert={file}"


NOT_TRUSTED = (
    "no connection to Postgres: its certificate is not trusted: name whom to trust by sslrootcert in DATABASE_URL"
)


def test_postgres_certificate_that_nobody_vouches_for_is_refused_in_one_sentence(
    over_tls: Callable[..., Settings], of_another: str
) -> None:
    assert _refusal_by_postgres(over_tls(of_another, redis_tls_verify=False)) == NOT_TRUSTED


@pytest.mark.slow  # a worker waits ten seconds for a connection
def test_a_worker_that_does_not_trust_postgres_says_so_in_one_line(
    over_tls: Callable[..., Settings], of_another: str
) -> None:
    assert _refusal(over_tls(of_another, redis_tls_verify=False)) == f"onelane: {NOT_TRUSTED}"


def test_a_postgres_that_speaks_no_tls_is_refused_when_the_address_asks_for_it(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_say_no, args=(listener,), daemon=True).start()
        url = f"postgresql://postgres@127.0.0.1:{listener.getsockname()[1]}/postgres?sslmode=require"
        said = _refusal_by_postgres(settings.model_copy(update={"database_url": url}))
    assert said.startswith("no connection to Postgres: it speaks no TLS, which sslmode")


def _refusal_by_postgres(settings: Settings) -> str:
    """Return why services that wait for half a second get no connection."""
    services = open_services(settings, pool_wait_s=0.5)
    try:
        with pytest.raises(StoreUnavailable) as refusal:
            services.database.ping()
    finally:
        services.close()
    return str(refusal.value)


def _say_no(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client:
                client.recv(len(SSL_REQUEST))
                client.sendall(b"N")


def test_a_file_of_authorities_that_is_not_there_is_named(over_tls: Callable[..., Settings]) -> None:
    said = _refusal(over_tls("sslmode=require", redis_tls_ca_file=Path("/nowhere/ca.pem")))
    assert said == "onelane: REDIS_TLS_CA_FILE: Path does not point to a file"


def _refusal(settings: Settings) -> str:
    """Start a worker that cannot work; return the one line, beside its log, in which it says why."""
    done = subprocess.run(
        [sys.executable, "-m", "onelane", "worker", "--unsupervised"],
        env=environment(settings, log_level="ERROR"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if line.startswith("onelane: ")]
    return line
