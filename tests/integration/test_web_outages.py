"""Postgres takes no writes, or falls silent: webhooks are refused for now, and none is lost."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import psycopg
import pytest
from flask.testing import FlaskClient

from onelane import keys
from onelane.bootstrap import Services
from onelane.channels import provider_of
from onelane.channels.provider import Signed
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.dev.embedded import EmbeddedPostgres
from onelane.dev.embedded.redis import free_port
from onelane.dev.stack import Stack, is_ready
from onelane.inbox.intake import ANSWER_MAX_S
from onelane.inbox.patience import PATIENT_MAX
from onelane_web import create_app
from tests.conftest import DEADLINE_S, ROOT, eventually
from tests.processes import environment, web_process
from tests.proxy import Proxy
from tests.rows import Rows

CLIENTS = 4
MANY = 8
SLEEP = "SELECT pg_sleep(4)"
REQUEST_MAX_S = 3.0
BACK_MAX_S = 2.0
"""Twice that is allowed here, and BUSY_S: the machine may be busy."""
BUSY_S = 5.0
RUSH, THREADS = 160, 4
CALL_S = 0.25
"""How long a slow Redis takes."""
SETTING = "ALTER SYSTEM SET default_transaction_read_only = {}"


@contextmanager
def read_only(postgres: EmbeddedPostgres) -> Iterator[None]:
    """Let all connections, also those that are open, take no writes."""
    with psycopg.connect(postgres.url, autocommit=True, options="-c default_transaction_read_only=off") as admin:

        def switch(to: str) -> None:
            admin.execute(SETTING.format(to))
            admin.execute("SELECT pg_reload_conf()")

        switch("on")
        try:
            yield
        finally:
            switch("off")


def post(port: int, signed: Signed) -> int:
    """Deliver to a web on this machine."""
    connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    connection.request("POST", "/webhooks/demo", signed.body, dict(signed.headers))
    status = connection.getresponse().status
    connection.close()
    return status


def is_listening(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S).close()
        return True
    return False


@pytest.fixture
def client(services: Services) -> FlaskClient:
    return create_app(services).test_client()


def is_read_only(services: Services) -> bool:
    row = services.database.row("SELECT current_setting('transaction_read_only') AS setting")
    return row is not None and row.setting == "on"


def test_a_webhook_to_a_read_only_postgres_is_refused_for_now_and_accepted_when_it_comes_again(
    client: FlaskClient, services: Services, settings: Settings, postgres: EmbeddedPostgres, rows: Rows
) -> None:
    signed = provider_of(settings.channels["demo"]).sign(
        "", Delivery(senders=("alice",), external_id="m1", text="hello")
    )

    def deliver() -> int:
        response = client.post("/webhooks/demo", data=signed.body, headers=dict(signed.headers))
        if response.status_code == 503:
            assert int(response.headers["Retry-After"]) > 0
        return response.status_code

    with read_only(postgres):
        eventually(lambda: is_read_only(services))
        assert {deliver() for _ in range(3)} == {503}
        assert client.get("/healthz").status_code == 200
        assert (client.get("/readyz").json or {})["postgres"] in {"read-only", "unavailable"}
    assert eventually(lambda: deliver() == 202)
    assert [row.external_id for row in rows.accepted()] == ["m1"]
    assert eventually(lambda: client.get("/readyz").status_code == 200)


@pytest.mark.slow
def test_connections_that_fall_silent_cost_no_thread_and_no_message(
    services: Services, settings: Settings, rows: Rows, tmp_path: Path
) -> None:
    """As many webhooks as threads, and more, meet silent connections; each has an answer, and comes again until 202."""
    signed = [
        provider_of(settings.channels["demo"]).sign(
            "", Delivery(senders=(f"user {nr}",), external_id=f"m{nr}", text="x")
        )
        for nr in range(12)
    ]
    with (
        Proxy(settings.database_url) as proxy,
        web_process(settings.model_copy(update={"database_url": proxy.url}), tmp_path) as port,
        ThreadPoolExecutor(len(signed)) as clients,
    ):

        def deliver(nr: int) -> int:
            return post(port, signed[nr])

        assert list(clients.map(deliver, range(6))) == [202] * 6
        proxy.silence()
        answers = list(clients.map(deliver, range(6, 12)))
        assert set(answers) <= {202, 503}
        assert eventually(lambda: set(clients.map(deliver, range(12))) == {202})
        assert "web_stuck" not in (tmp_path / "web.log").read_text()
    assert len(rows.accepted()) == 12


@pytest.mark.slow
def test_with_all_connections_in_statements_that_hang_few_webhooks_wait_and_the_others_are_refused_at_once(
    services: Services, settings: Settings, postgres: EmbeddedPostgres, rows: Rows
) -> None:
    app, size = create_app(services), settings.web_db_pool_max

    def deliver(nr: int) -> tuple[int, float]:
        delivery = Delivery(senders=(f"user {nr}",), external_id=f"m{nr}", text="x")
        signed, began = provider_of(settings.channels["demo"]).sign("", delivery), time.monotonic()
        answer = app.test_client().post("/webhooks/demo", data=signed.body, headers=dict(signed.headers))
        return answer.status_code, time.monotonic() - began

    with (
        psycopg.connect(postgres.url, autocommit=True) as admin,
        ThreadPoolExecutor(size) as hanging,
        ThreadPoolExecutor(MANY) as clients,
    ):

        def of_sleepers(what: str) -> int:
            found = admin.execute(
                f"SELECT {what} FROM pg_stat_activity WHERE query = %s AND state = 'active'", (SLEEP,)
            )
            return len(found.fetchall())

        sleeps = [hanging.submit(services.database.rows, SLEEP, within_s=DEADLINE_S) for _ in range(size)]
        eventually(lambda: of_sleepers("pid") == size)
        answers = list(clients.map(deliver, range(MANY)))
        of_sleepers("pg_cancel_backend(pid)")
        assert all(sleep.exception(DEADLINE_S) for sleep in sleeps)
        assert {status for status, _ in answers} == {503}
        waited = sorted(seconds for _, seconds in answers)
        assert waited[-1] < 2 * REQUEST_MAX_S
        assert waited[-PATIENT_MAX - 1] < ANSWER_MAX_S, "more than few wait on"
        assert eventually(lambda: deliver(0)[0] == 202)
    assert "m0" in {row.external_id for row in rows.accepted()}


@pytest.mark.slow
@pytest.mark.parametrize(("away", "meanwhile"), [("database_url", 503), ("redis_url", 202)])
def test_a_web_that_starts_while_a_server_is_away_does_its_work_as_soon_as_that_is_back(
    away: str, meanwhile: int, services: Services, settings: Settings, rows: Rows, tmp_path: Path
) -> None:
    signed = provider_of(settings.channels["demo"]).sign("", Delivery(senders=("alice",), external_id="m1", text="x"))
    port = free_port()
    with Proxy(str(getattr(settings, away))) as proxy:
        beyond = settings.model_copy(update={away: proxy.url})
        with Stack(tmp_path, environment(beyond), cwd=ROOT) as stack:
            with proxy.refusing():
                web = stack.start_web(port)
                eventually(lambda: is_listening(port))
                assert post(port, signed) == meanwhile
                assert not is_ready(port)
            eventually(lambda: is_ready(port) and post(port, signed) == 202)
            assert web.is_running
    assert [row.external_id for row in rows.accepted()] == ["m1"]


@pytest.mark.slow
def test_while_postgres_is_silent_no_webhook_waits_long_and_when_it_is_back_they_are_accepted_soon(
    services: Services, settings: Settings, rows: Rows, tmp_path: Path
) -> None:
    def timed_post(nr: int) -> tuple[int, float]:
        delivery = Delivery(senders=(f"user {nr}",), external_id=f"m{nr}", text="x")
        signed, began = provider_of(settings.channels["demo"]).sign("", delivery), time.monotonic()
        return post(port, signed), time.monotonic() - began

    with (
        Proxy(settings.database_url) as proxy,
        web_process(settings.model_copy(update={"database_url": proxy.url}), tmp_path) as port,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        assert timed_post(0)[0] == 202
        with proxy.silencing():
            answers = list(clients.map(timed_post, range(1, 4 * CLIENTS)))
            at_once = [timed_post(nr) for nr in range(6)]
        began = time.monotonic()
        eventually(lambda: timed_post(99)[0] == 202)
        back_s = time.monotonic() - began
    assert {status for status, _ in answers + at_once} == {503}
    assert max(seconds for _, seconds in answers) < 2 * REQUEST_MAX_S
    assert sorted(seconds for _, seconds in at_once)[len(at_once) // 2] < 1
    assert back_s < 2 * BACK_MAX_S + BUSY_S
    assert {row.external_id for row in rows.accepted()} >= {"m0", "m99"}


@pytest.mark.slow
def test_a_redis_that_is_slow_keeps_no_webs_threads_from_other_webhooks(
    services: Services, settings: Settings, rows: Rows, tmp_path: Path
) -> None:
    """Each had waited for a call of its own, so that no web answered more than four in the time of one."""
    sign = provider_of(settings.channels["demo"]).sign

    def statuses_of(which: str) -> set[int]:
        names = [f"{which}-{nr}" for nr in range(RUSH)]
        webhooks = [sign("", Delivery(senders=(name,), external_id=name, text="x")) for name in names]
        return set(clients.map(partial(post, port), webhooks))

    with (
        Proxy(settings.redis_url) as proxy,
        web_process(settings.model_copy(update={"redis_url": proxy.url}), tmp_path) as port,
        ThreadPoolExecutor(2 * MANY) as clients,
    ):
        assert statuses_of("first") == {202}  # all threads connect
        proxy.delay_s = CALL_S
        began = time.monotonic()
        statuses = statuses_of("late")
        took_s = time.monotonic() - began
        proxy.delay_s = 0.0
        eventually(lambda: services.lanes.client.zcard(keys.lanes()) == 2 * RUSH)
    assert statuses == {202}
    assert took_s < RUSH / THREADS * CALL_S / 2
    assert len(rows.accepted()) == 2 * RUSH
