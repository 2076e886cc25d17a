"""What is signed is never lost: it is accepted, or kept whole until it is understood or dropped."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient

from onelane.bootstrap import Services, open_services
from onelane.channels import Inbound, Parsed, provider_of
from onelane.channels.standard import Standard, StandardSettings
from onelane.cli import onelane
from onelane.config import Settings
from onelane.deliveries import Delivery, Ignored, Item, Quarantined, Status
from onelane.doctor.finding import Deployment, Health
from onelane.doctor.quarantine import quarantine_is_empty
from onelane.errors import BacklogFull, StoreUnavailable
from onelane.inbox.quarantine import Quarantine
from onelane.inbox.receiving import Receiving
from onelane.inbox.statuses import Statuses
from onelane.model import JsonObject
from onelane.operations import quarantine as operations
from onelane_web import create_app
from tests.conftest import LogLines
from tests.duties import duties_of
from tests.processes import environment
from tests.rows import Rows

SECRET_TEXT = "a secret wish"
ODD: dict[str, JsonObject] = {
    "nul": {"text": "\0"},
    "object": {"parts": {"word": object()}},
    "nobody's": {"senders": ()},
}
"""What an adapter may not give, by the word."""


class Album(Standard):
    """A provider whose webhooks hold several things: a word of the text each."""

    understands = False

    def parse(self, request: Inbound) -> Parsed:
        """Read each word: `?` is not understood before this release learns it."""
        [one] = super().parse(request).deliveries
        return Parsed([self._item(one, nr, word) for nr, word in enumerate(one.text.split())])

    def _item(self, one: Delivery, nr: int, word: str) -> Item:
        if word == "?" and not self.understands:
            return Quarantined("text: is a riddle")
        if word == "sent":
            return Status(provider_id="p1", state="sent")
        if word == "nothing":
            return Ignored("nothing")
        external_id = "".join(uuid4().hex for _ in range(200)) if word == "huge" else f"{one.external_id} {nr}"
        return one.model_copy(update={"external_id": external_id, "text": word, **ODD.get(word, {})})


@pytest.fixture
def album(settings: Settings) -> Album:
    return Album(StandardSettings.model_validate(settings.channels["demo"].own))


@pytest.fixture
def receiving(services: Services, album: Album) -> Receiving:
    statuses = Statuses(services.database, {}, services.out_lanes, services.failures)
    return Receiving({"demo": album}, services.database.breaker, services.intake, statuses, services.quarantine)


@pytest.fixture
def deliver(services: Services, receiving: Receiving, album: Album) -> Callable[[str], int]:
    client: FlaskClient = create_app(replace(services, providers={"demo": album}, receiving=receiving)).test_client()

    def deliver(text: str, external_id: str = "m1") -> int:
        signed = album.sign("", Delivery(senders=("alice",), external_id=external_id, text=text))
        return client.post("/webhooks/demo", data=signed.body, headers=dict(signed.headers)).status_code

    return deliver


def texts(rows: Rows) -> list[str]:
    return [row.text for row in rows.accepted()]


def test_what_is_not_understood_is_kept_once_and_its_neighbours_stand(
    deliver: Callable[[str], int], services: Services, rows: Rows, log_lines: LogLines
) -> None:
    assert [deliver("one ? two"), deliver("one ? two")] == [202, 202]
    assert texts(rows) == ["one", "two"]
    [kept] = services.quarantine.all(None, 10)
    assert (kept.channel, kept.reasons) == ("demo", ("text: is a riddle",))
    request = services.quarantine.request(kept.id, "")
    assert request is not None
    assert b"one ? two" in request.body
    assert set(request.headers) <= {"webhook-id", "webhook-timestamp", "user-agent"}
    assert [line["event"] for line in log_lines].count("webhook_quarantined") == 1


@pytest.mark.parametrize("word", ["nul", "huge", "object", "nobody's"])
def test_what_postgres_refuses_is_kept_and_its_neighbours_stand(
    deliver: Callable[[str], int], services: Services, rows: Rows, word: str
) -> None:
    """A NUL fails all that is asked together; a key that is too long fails alone; an object cannot even be asked."""
    assert deliver(f"one {word} two") == 202
    assert texts(rows) == ["one", "two"]
    [kept] = services.quarantine.all(None, 10)
    assert kept.reasons[0].startswith("Postgres refuses it: ")


def test_statuses_are_kept_each_once(deliver: Callable[[str], int], rows: Rows) -> None:
    assert [deliver("sent"), deliver("sent nothing")] == [202, 202]
    assert rows.counts()["reply_statuses"] == 1


def test_a_replay_accepts_in_order_what_is_understood_now_and_only_then_it_leaves(
    deliver: Callable[[str], int], services: Services, receiving: Receiving, album: Album, rows: Rows
) -> None:
    deliver("one ? ?")
    [kept] = services.quarantine.all(None, 10)
    arguments = (kept.id, services.database, services.quarantine, receiving, services.settings.channels)
    replayed = operations.replay(*arguments, by="ann")
    assert replayed == operations.Replayed(id=kept.id, accepted=0, duplicates=1, reasons=("text: is a riddle",) * 2)
    album.understands = True
    replayed = operations.replay(*arguments, by="ann")
    assert replayed == operations.Replayed(id=kept.id, accepted=2, duplicates=1, reasons=())
    assert texts(rows) == ["one", "?", "?"]
    assert operations.replay(*arguments, by="ann") is None


AGED = (
    "UPDATE accepted_deliveries SET accepted_at = accepted_at - make_interval(days => %s)",
    "UPDATE quarantined_payloads SET received_at = received_at - make_interval(days => %s)",
)


def test_what_a_kept_webhook_has_accepted_is_known_until_it_is_gone(
    deliver: Callable[..., int], services: Services, receiving: Receiving, album: Album, rows: Rows
) -> None:
    """A replay on the tenth day accepted and answered again what had been accepted on the first."""
    services.database.rows(
        "INSERT INTO accepted_deliveries (channel, external_id, user_id, message_id, seq, accepted_at)"
        " VALUES ('other', 'm1', new_id(), new_id(), 1, now())"
    )
    deliver("one ?")
    deliver("before", "m0")
    services.database.rows(
        "UPDATE accepted_deliveries SET accepted_at = now() - interval '9 d' WHERE external_id = 'm0 0'"
    )
    for query in AGED:
        services.database.rows(query, (10,))
    duties = duties_of(services, parked_max_s=1)

    def known() -> set[tuple[str, str]]:
        for _day in range(12):
            duties.forget_deliveries()
        return {(row.channel, row.external_id) for row in services.database.rows("SELECT * FROM accepted_deliveries")}

    assert known() == {("demo", "m1 0")}
    [kept] = services.quarantine.all(None, 10)
    album.understands = True
    arguments = (kept.id, services.database, services.quarantine, receiving, services.settings.channels)
    replayed = operations.replay(*arguments, by="ann")
    assert replayed == operations.Replayed(id=kept.id, accepted=1, duplicates=1, reasons=())
    assert sorted(texts(rows)) == ["?", "before", "one"]
    assert known() == {("demo", "m1 1")}


def test_a_full_quarantine_refuses_what_is_new_and_removes_nothing(services: Services, log_lines: LogLines) -> None:
    quarantine = Quarantine(services.database, 1, 1)
    request = Inbound(url="/", headers={}, content_type="", body=b"\0\xff")
    quarantine.keep("demo", request, ["a"])
    quarantine.keep("demo", request, ["a"])
    quarantine.keep("other", request, ["a"])
    with pytest.raises(StoreUnavailable):
        quarantine.keep("demo", replace(request, body=b"x"), ["a"])
    assert len(quarantine.all(None, 10)) == 2
    assert log_lines[-1]["event"] == "quarantine_full"


def test_what_is_kept_for_long_enough_is_deleted(services: Services, rows: Rows) -> None:
    Quarantine(services.database, 9, 0).keep("demo", Inbound("/", {}, "", b"old"), ["a"])
    Quarantine(services.database, 9, 1).keep("demo", Inbound("/", {}, "", b"new"), ["a"])
    duties_of(services, parked_max_s=1).forget_deliveries()
    assert rows.counts()["quarantined_payloads"] == 1


def test_the_doctor_warns_while_something_is_kept(services: Services) -> None:
    deployment = Deployment(services.settings, services.database, services.lanes)
    assert quarantine_is_empty(deployment).health is Health.OK
    services.quarantine.keep("demo", Inbound("/", {}, "", b"x"), ["text: is a riddle"])
    finding = quarantine_is_empty(deployment)
    assert (finding.health, finding.details) == (Health.WARNING, ("1 of demo: text: is a riddle",))


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch, _root_logger_as_it_was: None) -> Callable[..., Result]:
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    return lambda *arguments, **how: CliRunner().invoke(onelane, ["quarantine", *arguments], **how)


def kept_message(services: Services, settings: Settings) -> UUID:
    """Keep what a standard channel understands."""
    signed = provider_of(settings.channels["demo"]).sign(
        "", Delivery(senders=("alice",), external_id="m1", text=SECRET_TEXT)
    )
    headers = {name.lower(): value for name, value in signed.headers.items()}
    services.quarantine.keep("demo", Inbound("/", headers, "application/json", signed.body), ["text: is a riddle"])
    return services.quarantine.all(None, 1)[0].id


def test_the_commands_show_a_webhook_without_what_it_holds_replay_and_drop_it(
    command: Callable[..., Result], services: Services, settings: Settings, rows: Rows
) -> None:
    assert "nothing is in quarantine" in command("list").output
    kept = str(kept_message(services, settings))
    listed, shown, whole = command("list"), command("show", kept), command("show", kept, "--body")
    assert "text: is a riddle" in listed.output
    assert SECRET_TEXT not in listed.output + shown.output
    assert SECRET_TEXT in whole.output
    assert "1 line accepted" in command("replay", kept).output
    assert texts(rows) == [SECRET_TEXT]
    assert command("show", kept).exit_code == 1
    kept = str(kept_message(services, settings))
    assert command("drop", kept, input="n\n").exit_code == 1
    assert command("drop", kept, input="y\n").exit_code == 0
    assert services.quarantine.all(None, 1) == []


def test_a_provider_that_delivers_nothing_again_may_have_twice_the_backlog(
    settings: Settings, services: Services, album: Album, rows: Rows
) -> None:
    """Its users' messages are kept up to there; then they are refused by name."""
    demo = settings.channels["demo"].model_copy(update={"backlog_max": 2})
    with closing(open_services(settings.model_copy(update={"channels": {"demo": demo}}))) as limited:
        statuses = Statuses(limited.database, {}, limited.out_lanes, limited.failures)
        receiving = Receiving({"demo": album}, limited.database.breaker, limited.intake, statuses, limited.quarantine)
        vars(album)["redelivers"] = False

        def receive(text: str, external_id: str) -> None:
            signed = album.sign("", Delivery(senders=("alice",), external_id=external_id, text=text))
            headers = {name.lower(): value for name, value in signed.headers.items()}
            receiving.receive("demo", Inbound("/", headers, "application/json", signed.body), lambda _message: None)

        receive("1 2 3 4", "m1")
        with pytest.raises(BacklogFull):
            receive("5 ?", "m2")
    assert texts(rows) == ["1", "2", "3", "4"]
    assert len(services.quarantine.all(None, 9)) == 1
