import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs
from werkzeug.serving import make_server

from onelane.bootstrap import Services
from onelane.channels import PROVIDERS
from onelane.config import Channel, Settings
from onelane.dev import talk as sending
from onelane.dev.played import Act
from onelane.dev.run.data_folder import VARIABLE, DataFolder
from onelane.dev.target import find_target
from onelane_web import create_app
from tests.conftest import RunWorker, slow_after
from tests.processes import environment

SUPPORT = Channel(provider="twilio", secrets=("twilio-auth-token",), public_url="https://bot.example/hooks")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Have a demo channel of each provider, as `onelane run` has, and one behind a proxy."""
    demos = {name: Channel(**one) for name, one in DataFolder(tmp_path).demo_channels().items()}
    return settings.model_copy(update={"channels": {**demos, "support": SUPPORT}})


Publish = Callable[[int, str], None]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Let other commands find a run of `onelane run` that listens on a port, as it itself does."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return lambda port, channels: DataFolder.of_environment().publish({"PORT": str(port), "CHANNELS": channels})


@pytest.fixture
def stack(services: Services, settings: Settings, publish: Publish) -> Iterator[None]:
    """Serve the application on a free port, as the running stack."""
    server = make_server("127.0.0.1", 0, create_app(services), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    publish(server.port, environment(settings)["CHANNELS"])
    with capture_logs():  # they would be printed among the replies
        yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def worker(run_worker: Callable[[Settings], Any], settings: Settings) -> Iterator[None]:
    with run_worker(settings):
        yield


def session_in(line: str) -> str:
    return line.partition("(session ")[2].partition(",")[0]


@pytest.mark.usefixtures("services", "stack", "worker")
@pytest.mark.parametrize("channel", slow_after(3, ["support", *(name for name in PROVIDERS if name != "standard")]))
def test_what_is_sent_is_answered_from_one_session(channel: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sending.send(Act("alice", "hello"), channel=channel) == 0
    assert sending.send(Act("alice", "again", button="b"), channel=channel) == 0
    assert sending.send(Act("alice", "look", album=2), channel=channel) == 0
    first, second, *album = capsys.readouterr().out.splitlines()
    assert "hello" in first
    assert first.endswith(", seq 1)")
    assert second.endswith(", seq 2)")
    assert all(session_in(first) == session_in(line) for line in (second, *album))
    assert album


@pytest.mark.usefixtures("services", "stack", "worker")
@pytest.mark.parametrize("provider", ["meta", "standard"])
def test_somebody_with_another_id_is_in_the_same_session(provider: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sending.send(Act("alice", "hello"), provider=provider) == 0
    assert sending.send(Act("alice", "still me", then_new_id=True), provider=provider) == 0
    first, change, second = capsys.readouterr().out.splitlines()
    assert change.startswith("accepted   (change of id ")
    assert session_in(first) == session_in(second)


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize(
    ("act", "provider", "why"),
    [
        (Act("alice", then_new_id=True), "twilio", "Twilio sends no IdentityChange"),
        (Act("alice", then_new_id=True), "telegram", "of people Telegram never changes the number"),
        (Act("alice", "new", edit="m1"), "twilio", "Twilio sends no edited"),
        (Act("alice", status="read"), "twilio", "--status needs --reply"),
        (Act("alice", status="read", reply="7"), "telegram", "Telegram sends no Status"),
        (Act("alice"), "fax", "no channel of the provider 'fax'; configured: demo, meta, "),
    ],
    ids=str,
)
def test_what_a_provider_does_not_have_is_said(
    act: Act, provider: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sending.send(act, provider=provider) == 1
    assert why in capsys.readouterr().err


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize("provider", ["meta", "standard", "twilio"])
def test_what_became_of_a_reply_and_what_happened_is_accepted(
    provider: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sending.send(Act("alice", status="delivered", reply=str(uuid4())), provider=provider, wait=False) == 0
    assert sending.send(Act("alice", location=(48.5, 2.25)), provider=provider, wait=False) == 0
    status, place = capsys.readouterr().out.splitlines()
    assert status == "accepted   (status delivered)"
    assert place.startswith("accepted   (message ")


@pytest.mark.usefixtures("services", "stack", "worker")
def test_many_are_answered_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert sending.send(Act("alice", "hello", count=40)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("seq ")[2] for line in lines] == [f"{seq})" for seq in range(1, 41)]


@pytest.mark.usefixtures("services", "stack", "worker")
def test_a_duplicate_shows_the_reply_it_had(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert sending.send(Act("alice", "hello", message_id="m1")) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert second == first.removesuffix(")") + ", duplicate)"


@pytest.mark.usefixtures("services", "stack")
def test_a_bots_mistake_is_told_in_words_as_it_happens_and_ends_the_command_with_1(
    run_worker: RunWorker, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    retries = {"attempts_max": 2, "retry_base_s": 6, "retry_max_s": 6}  # for 3 to 6 s the first attempt is seen
    with run_worker(settings.model_copy(update={"handler": "tests.bots:answer_with_a_dict", **retries})):
        assert sending.send(Act("alice", "hello")) == 1
    told = capsys.readouterr()
    mistake = "a handler returns str, Reply, a list of at most 100 of them, or None; not dict"
    assert told.err.splitlines() == [f"attempt 1 failed: {mistake}"]
    assert told.out.startswith(f"(dead, no reply: {mistake})   (session ")


@pytest.mark.usefixtures("stack")
def test_without_a_worker_it_says_so_at_the_deadline(capsys: pytest.CaptureFixture[str]) -> None:
    assert sending.send(Act("alice", "hello"), timeout_s=0.1) == 1
    assert "1 of 1 messages not done within 0.1 s: is a worker running?" in capsys.readouterr().err


@pytest.mark.usefixtures("stack")
def test_without_waiting_it_says_what_was_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert sending.send(Act("alice", "hello", message_id="m1"), wait=False) == 0
    assert sending.send(Act("alice", "hello", message_id="m2"), channel="support", wait=False) == 0
    assert capsys.readouterr().out.splitlines() == [
        "accepted   (message m1, seq 1)",
        "accepted   (message m2)",
    ]


@pytest.mark.usefixtures("stack")
def test_a_refusal_is_shown_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert sending.send(Act("alice", "")) == 1
    assert "refused: quarantined: text: must not be empty" in capsys.readouterr().err


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize("message_id", ["two\nlines", "é"])
def test_an_impossible_message_id_is_refused_here(message_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sending.send(Act("alice", "hello", message_id=message_id)) == 1
    assert "visible ASCII" in capsys.readouterr().err


def test_with_nothing_listening_it_asks_for_onelane_run(
    settings: Settings, publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    publish(port, environment(settings)["CHANNELS"])
    assert sending.send(Act("alice", "hello")) == 1
    assert "is `onelane run` running?" in capsys.readouterr().err


def test_the_running_stack_says_where_it_is(publish: Publish) -> None:
    channels = '{"a": {"provider": "twilio", "secrets": ["x"]}, "demo": {"provider": "twilio", "secrets": ["y"]}}'
    publish(8123, channels)
    target = find_target()
    assert (target.webhook, target.channel.own["secrets"]) == (
        "http://127.0.0.1:8123/webhooks/demo",
        ["y"],
    )
    assert find_target("a").name == "a"


def test_a_channel_that_does_not_exist_is_named_with_those_that_do(
    publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    channels = '{"demo": {"provider": "twilio", "secrets": ["y"]}}'
    publish(8123, channels)
    assert sending.send(Act("alice", "hello"), channel="nobody") == 1
    assert "no channel 'nobody'; configured: demo" in capsys.readouterr().err


def test_with_no_stack_and_no_settings_it_asks_for_onelane_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert sending.send(Act("alice", "hello")) == 1
    assert "is `onelane run` running?" in capsys.readouterr().err
