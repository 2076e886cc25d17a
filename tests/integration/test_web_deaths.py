"""Web processes that die, and webhooks that come many times at once: each message is one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from onelane.bootstrap import Services
from onelane.channels import provider_of
from onelane.channels.provider import Signed
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.dev.embedded.redis import free_port
from onelane.dev.stack import WEB, Stack
from tests.conftest import DEADLINE_S, ROOT, eventually
from tests.processes import environment
from tests.rows import Rows

AT_ONCE = 20
POINTS = ("before commit", "after commit", "after enqueue", "before answer")


def signed(settings: Settings, nr: int) -> Signed:
    delivery = Delivery(senders=("alice",), external_id=f"m{nr}", text=f"hello {nr}")
    return provider_of(settings.channels["demo"]).sign("", delivery)


def post(port: int, webhook: Signed) -> int:
    """Deliver to a web on this machine; 0: it died."""
    connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request("POST", "/webhooks/demo", webhook.body, dict(webhook.headers))
        return connection.getresponse().status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()


@contextmanager
def webs(settings: Settings, folder: Path, number: int, application: str = WEB, **extra: object) -> Iterator[list[int]]:
    """Serve the web in several processes; yields their ports."""
    ports = [free_port() for _ in range(number)]
    with Stack(folder, environment(settings, **extra), cwd=ROOT) as stack:
        for port in ports:
            stack.start_web(port, application, name=f"web {port}")
        for port in ports:
            stack.await_web(port)
        yield ports


@pytest.mark.slow
def test_a_web_killed_anywhere_between_a_webhook_and_its_answer_loses_and_doubles_nothing(
    services: Services, settings: Settings, rows: Rows, tmp_path: Path
) -> None:
    struck = tmp_path / "struck"
    struck.mkdir()
    webhook = signed(settings, 1)
    with webs(settings, tmp_path, 1, "tests.faulty_web:app", faults=struck, fault_points=",".join(POINTS)) as [port]:
        answers = [post(port, webhook) for _ in POINTS]
        assert eventually(lambda: post(port, webhook)) == 202
    assert answers == [0] * len(POINTS)
    assert {path.name for path in struck.iterdir()} == set(POINTS)
    [row] = rows.accepted()
    assert (row.seq, row.external_id) == (1, "m1")
    assert services.lanes.jobs(row.user_id) == [str(row.id)]


@pytest.mark.slow
def test_the_same_message_many_times_at_once_on_two_webs_is_one(
    services: Services, settings: Settings, rows: Rows, tmp_path: Path
) -> None:
    with webs(settings, tmp_path, 2) as ports, ThreadPoolExecutor(AT_ONCE) as clients:
        webhook = signed(settings, 1)
        answers = list(clients.map(lambda nr: post(ports[nr % 2], webhook), range(AT_ONCE)))
    assert answers == [202] * AT_ONCE
    [row] = rows.accepted()
    assert services.lanes.jobs(row.user_id) == [str(row.id)]
