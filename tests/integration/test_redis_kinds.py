"""The kinds of Redis beside the plain one: by a socket in a folder, with TLS of its own, under Sentinels."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import trustme
from redis.backoff import NoBackoff
from redis.retry import Retry

from onelane.bootstrap import Services, open_services
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.dev.embedded import EmbeddedRedis
from onelane.dev.embedded.redis import free_port
from onelane.doctor.examination import examine
from onelane.doctor.finding import Deployment, Health
from onelane.errors import LanesDenied, LanesUnavailable
from tests.conftest import DEADLINE_S, RunWorker, deliver, eventually
from tests.rows import Rows
from tests.sentinels import PASSWORD, Watched, watched

USERS = [f"user {nr}" for nr in range(10)]
BEFORE, DURING, AFTER = 3, 10, 12
"""Messages of each user in all: written before the primary is gone, by the end of that, and once it has come back."""
GOES_ON_WITHIN_S = 20.0
"""After the primary is gone: the Sentinels notice it and agree on another, workers ask them. Measured: 3 and 6 s."""


@pytest.mark.slow
def test_a_message_goes_all_the_way_over_a_socket_in_a_folder(
    rows: Rows, settings: Settings, run_worker: RunWorker, tmp_path: Path
) -> None:
    path = tmp_path / "redis.sock"
    with EmbeddedRedis(tmp_path / "redis", settings={"unixsocket": str(path), "unixsocketperm": "700"}) as server:
        url = f"unix://:{server._password}@{path}?db=1"
        _answer_one(rows, settings.model_copy(update={"redis_url": url}), run_worker)
        with redis.Redis.from_url(url) as client:
            assert client.exists("instance")


def _answer_one(rows: Rows, settings: Settings, run_worker: RunWorker) -> None:
    """Accept a message in a web, and answer it in a worker; nothing is wrong with either server."""
    web = open_services(settings)
    try:
        with run_worker(settings):
            deliver(web, [Delivery(senders=("alice",), external_id="1", text="hello")])
            eventually(rows.answered)
            deployment = Deployment(settings, web.database, web.lanes)
            found = {one.check: one.finding.health for one in examine(deployment)}
            assert {found[check] for check in ("redis", "owner", "eviction")} == {Health.OK}
    finally:
        web.close()


@contextmanager
def redis_with_tls(folder: Path, authority: trustme.CA) -> Iterator[str]:
    """Run Debian's Redis, which speaks TLS itself; yields the place and the password of its one user."""
    program = shutil.which("redis-sentinel")
    if program is None:
        needed = "no Redis that speaks TLS: apt-get install redis-sentinel"
        if os.environ.get("CI"):
            pytest.fail(needed)
        pytest.skip(needed)
    folder.mkdir()
    port, certificate = free_port(), authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    settings = {
        "port": 0,
        "tls-port": port,
        "tls-cert-file": folder / "cert.pem",
        "tls-key-file": folder / "key.pem",
        "tls-ca-cert-file": folder / "ca.pem",
        "tls-auth-clients": "no",
        "bind": "127.0.0.1",
        "requirepass": "secret",
        "save": '""',
        "dir": folder,
    }
    configuration = folder / "redis.conf"
    configuration.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    # One program plays all roles, and chooses by its name: so `redis-server` need not be installed, which starts one.
    server = subprocess.Popen(["redis-server", str(configuration)], executable=program, stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: _answers(f"rediss://:secret@127.0.0.1:{port}/0", folder / "ca.pem"))
        yield f":secret@127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait(DEADLINE_S)


def _answers(url: str, authorities: Path) -> bool:
    try:
        with redis.Redis.from_url(url, ssl_ca_certs=str(authorities), retry=Retry(NoBackoff(), 0)) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.mark.slow
def test_a_message_goes_all_the_way_over_the_tls_of_redis_itself(
    rows: Rows, settings: Settings, run_worker: RunWorker, tmp_path: Path
) -> None:
    with redis_with_tls(tmp_path / "redis", trustme.CA()) as place:
        secret = {"redis_url": f"rediss://{place}", "redis_tls_ca_file": tmp_path / "redis" / "ca.pem"}
        _answer_one(rows, settings.model_copy(update=secret), run_worker)
        plain = open_services(settings.model_copy(update={"redis_url": f"redis://{place}"}))
        with pytest.raises(LanesUnavailable):
            plain.lanes.probe()
        plain.close()


# Sentinels


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Watched]:
    """Run new ones: until an old primary has been made a replica, which takes 20 s, there is no other fail-over."""
    with watched(tmp_path) as servers:
        yield servers


@pytest.mark.slow
def test_sentinels_that_know_no_such_service_or_want_a_password_are_a_mistake_of_settings(
    settings: Settings, servers: Watched
) -> None:
    for url, said in {
        servers.url(service="others"): "its Sentinels do not know that service",
        servers.url().partition("?")[0]: "wants a password",
        servers.url(sentinel_password="wrong"): "refuses the user or the password",
    }.items():
        services = open_services(settings.model_copy(update={"redis_url": url}))
        with pytest.raises(LanesDenied, match=said) as denied:
            services.lanes.probe()
        assert PASSWORD not in str(denied.value)
        services.close()


def _frozen(primary: EmbeddedRedis) -> None:
    os.kill(primary.pid, signal.SIGSTOP)


def _thawed(primary: EmbeddedRedis) -> None:
    """Let it go on: it takes itself for the primary until a Sentinel corrects it."""
    os.kill(primary.pid, signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("leave", "come_back"),
    [(_frozen, _thawed), (EmbeddedRedis.kill, EmbeddedRedis.start)],
    ids=["frozen, with its connections open", "killed"],
)
def test_a_fail_over_under_traffic_loses_nothing_and_work_goes_on_soon(
    rows: Rows,
    settings: Settings,
    run_worker: RunWorker,
    servers: Watched,
    leave: Callable[[EmbeddedRedis], object],
    come_back: Callable[[EmbeddedRedis], object],
) -> None:
    primary = servers.await_readiness().primary
    guarded = settings.model_copy(update={"redis_url": servers.url(), "handler": "tests.bots:handle"})
    web = open_services(guarded)
    web.lanes.client.flushall()
    with run_worker(guarded):
        _write(web, range(BEFORE))
        eventually(lambda: rows.answered() == BEFORE * len(USERS))
        gone_at = time.monotonic()
        leave(primary)
        _write(web, range(BEFORE, DURING))
        eventually(lambda: rows.answered() == DURING * len(USERS))
        took_s = time.monotonic() - gone_at
        come_back(primary)
        _write(web, range(DURING, AFTER))
        eventually(lambda: rows.answered() == AFTER * len(USERS))
    web.close()
    assert took_s < GOES_ON_WITHIN_S
    assert servers.primary is not primary
    for user in USERS:
        assert rows.texts(rows.user_of("demo", user)) == [str(nr) for nr in range(AFTER)]
    assert rows.out_of_order() == []
    assert rows.attempts_max() == 0


def _write(web: Services, numbers: range) -> None:
    for nr in numbers:
        for user in USERS:
            external_id = f"{user}-{nr}".replace(" ", ".")
            deliver(web, [Delivery(senders=(user,), external_id=external_id, text=str(nr))])
