"""As many messages wait as may: webhooks are refused until some are worked off, and everybody who looks is told."""

import time

import pytest
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from onelane.bootstrap import Services
from onelane.channels import provider_of
from onelane.config import Settings
from onelane.deliveries import Delivery, Status
from onelane.doctor.finding import Deployment, Health
from onelane.doctor.inbox import inbox_has_room
from onelane.errors import StoreUnavailable
from onelane.inbox import fullness as module
from onelane.inbox.fullness import Fullness
from onelane_web import create_app
from tests.conftest import Accept
from tests.rows import Rows
from tests.working_off import work_off

MOST = 3


@pytest.fixture
def fullness(services: Services, monkeypatch: pytest.MonkeyPatch) -> Fullness:
    """Three messages may wait; they are counted whenever it is asked to look."""
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    monkeypatch.setattr(module, "PAUSE_FACTOR", 0)
    return Fullness(services.database, MOST)


@pytest.fixture
def client(services: Services, fullness: Fullness) -> FlaskClient:
    return create_app(services, fullness).test_client()


def deliver(client: FlaskClient, settings: Settings, external_id: str) -> int:
    delivery = Delivery(senders=("dave",), external_id=external_id, text="hello")
    signed = provider_of(settings.channels["demo"]).sign("", delivery)
    return client.post("/webhooks/demo", data=signed.body, headers=dict(signed.headers)).status_code


def health(services: Services) -> Health:
    settings = services.settings.model_copy(update={"backlog_total_max": MOST})
    return inbox_has_room(Deployment(settings, services.database, services.lanes)).health


def shown(client: FlaskClient) -> tuple[str, int, list[str]]:
    """Return what /readyz and /metrics say."""
    ready = client.get("/readyz")
    lines = client.get("/metrics").get_data(as_text=True).splitlines()
    return (ready.json or {})["inbox"], ready.status_code, [line for line in lines if line.startswith("onelane_inbox_")]


def test_at_the_bound_webhooks_are_refused_until_messages_have_been_worked_off_and_everybody_is_told(
    services: Services, fullness: Fullness, client: FlaskClient, settings: Settings, accept: Accept
) -> None:
    accept("alice")
    accept("alice")
    fullness.look()
    assert (health(services), deliver(client, settings, "d1")) == (Health.OK, 202)
    with capture_logs() as logs:
        fullness.look()
        fullness.look()
        assert (health(services), deliver(client, settings, "d2")) == (Health.WARNING, 503)
        assert shown(client) == ("full", 200, ["onelane_inbox_messages 3.0", "onelane_inbox_max_messages 3.0"])
        work_off(services, settings)
        assert deliver(client, settings, "d2") == 503, "nobody counts for a request"
        fullness.look()
    assert (health(services), deliver(client, settings, "d2")) == (Health.OK, 202)
    assert shown(client)[:2] == ("ok", 200)
    told = [(line["event"], line["most"]) for line in logs if line["event"].startswith("inbox_")]
    assert told == [("inbox_full", MOST), ("inbox_has_room", MOST)]


def test_statuses_are_taken_while_the_inbox_is_full(
    services: Services, fullness: Fullness, client: FlaskClient, settings: Settings, accept: Accept, rows: Rows
) -> None:
    for _ in range(MOST):
        accept("alice")
    fullness.look()
    provider = provider_of(settings.channels["demo"])

    def post(item: Delivery | Status) -> int:
        signed = provider.sign("", item)
        return client.post("/webhooks/demo", data=signed.body, headers=dict(signed.headers)).status_code

    status = Status(provider_id="p1", state="delivered")
    assert (post(Delivery(senders=("dave",), external_id="d1")), post(status)) == (503, 202)
    assert rows.counts()["reply_statuses"] == 1
    forged = client.post("/webhooks/demo", data=b"{}", headers=dict(provider.sign("", status).headers))
    assert forged.status_code == 401, "full or not"


class Database:
    """Counts how often it is asked, and answers, or does not."""

    def __init__(self) -> None:
        self.waiting: int | None = MOST
        self.asked = 0

    def row(self, _query: str, _params: object, **_how: float) -> object:
        self.asked += 1
        if self.waiting is None:
            raise StoreUnavailable("away")
        return type("Row", (), {"waiting": self.waiting})


def test_who_counts_does_so_every_few_seconds_and_the_last_count_stands_while_postgres_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, database = [1_000.0], Database()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tested = Fullness(database, MOST)  # type: ignore[arg-type]
    assert (tested.is_full, tested.waiting) == (False, None)
    for _ in range(100):
        tested.look()
        now[0] += 1
    assert 100 / 7 < database.asked < 100 / 3
    assert tested.is_full
    database.waiting = None
    now[0] += 10
    tested.look()
    assert tested.is_full
    database.waiting = 0
    now[0] += 10
    tested.look()
    assert not tested.is_full


def test_a_count_that_takes_long_is_made_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now, database = [1_000.0], Database()

    def slow_row(*_asked: object, **_how: float) -> object:
        now[0] += 1
        return Database.row(database, "", ())

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(database, "row", slow_row)
    tested = Fullness(database, MOST)  # type: ignore[arg-type]
    for _ in range(300):
        tested.look()
        now[0] += 1
    assert database.asked <= 1 + 300 / 15


def test_a_count_that_waited_out_an_outage_puts_off_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    now, database = [1_000.0], Database()

    def row(*_asked: object, **_how: float) -> object:
        if database.waiting is None:
            now[0] += 2
        return Database.row(database, "", ())

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(database, "row", row)
    tested = Fullness(database, MOST)  # type: ignore[arg-type]
    tested.look()
    assert tested.is_full
    now[0], database.waiting = now[0] + 10, None
    tested.look()
    now[0], database.waiting = now[0] + 7, 0
    tested.look()
    assert not tested.is_full


def test_without_a_bound_nobody_counts() -> None:
    database = Database()
    tested = Fullness(database, 0)  # type: ignore[arg-type]
    tested.look()
    assert (database.asked, tested.is_full) == (0, False)
