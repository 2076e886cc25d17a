"""`onelane doctor --providers`: each channel's address and token, tried at once; no finding holds a secret."""

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import trustme

from onelane.config import Channel, Settings
from onelane.doctor import providers
from onelane.doctor.finding import Deployment, Finding, Health
from onelane.testing.fake_providers import FakeProviders, fake_providers
from tests.conftest import SECRET
from tests.unit.test_fake_providers import BOT_TOKEN, CHANNELS, TOKEN

WRONG: dict[str, dict[str, Any]] = {
    "meta": {"access_token": "not-the-tokenofthe-user"},
    "slack": {"bot_token": "xoxb-not-the-right-one"},
    "telegram": {"bot_token": f"123456:{TOKEN[::-1]}"},
    "twilio": {"secrets": (TOKEN[::-1],)},
}


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeProviders]:
    with fake_providers(CHANNELS, tmp_path_factory.mktemp("fakes") / "journal.jsonl") as running:
        yield running


def found(channels: dict[str, Channel]) -> Finding:
    settings = Settings(database_url="postgresql://h/d", redis_url="redis://h", channels=channels)
    deployment = Deployment(settings, cast(Any, None), cast(Any, None))
    with ThreadPoolExecutor(1) as apart:  # the browser's tests keep a loop of their own running in the main thread
        return apart.submit(providers.providers_answer, deployment).result()


def test_with_the_right_tokens_all_is_well(fakes: FakeProviders) -> None:
    quiet = Channel(provider="twilio", secrets=(TOKEN,))
    demo = Channel(provider="demo", secrets=(SECRET,))
    finding = found({**{name: fakes.pointed(name, one) for name, one in CHANNELS.items()}, "in": quiet, "here": demo})
    assert (finding.health, finding.found) == (Health.OK, "channels that reach their providers: 5; tokens tried: 4")


def test_each_wrong_token_is_named_by_its_channel_and_never_shown(fakes: FakeProviders) -> None:
    channels = {
        name: fakes.pointed(
            name, Channel(**{**CHANNELS[name].model_dump(exclude_none=True), **CHANNELS[name].own, **own})
        )
        for name, own in WRONG.items()
    }
    finding = found({**channels, "demo": fakes.pointed("demo", CHANNELS["demo"])})
    assert (finding.health, finding.found) == (Health.FAILED, "channels that cannot send: 4 of 5")
    codes = {"meta": "190", "slack": "invalid_auth", "telegram": "401", "twilio": "20003"}
    assert finding.details == tuple(
        f"{name}: {fakes.base_url} answers {200 if name == 'slack' else 401} (code {code}, denied)"
        for name, code in codes.items()
    )
    assert finding.todo == providers.CHECK_ACCOUNT
    secrets = [BOT_TOKEN, TOKEN, *(str(value) for own in WRONG.values() for value in own.values())]
    assert not any(secret in finding.model_dump_json() for secret in secrets)


def test_what_does_not_answer_is_named_by_its_host_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "WITHIN_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = {"silent": silent.getsockname()[1], "closed": closed.getsockname()[1]}
        channels = {
            name: Channel(
                provider="slack",
                secrets=(TOKEN,),
                bot_token="xoxb-0123456789abcdef",
                base_url=f"http://127.0.0.1:{port}/x",
            )
            for name, port in ports.items()
        }
        finding = found(channels)
    assert finding.details == (
        f"silent: no answer from http://127.0.0.1:{ports['silent']} within 1 s",
        f"closed: no connection to http://127.0.0.1:{ports['closed']}: ConnectionRefusedError",
    )
    assert finding.todo == providers.CHECK_ADDRESS


def test_a_certificate_that_nobody_trusts_is_named(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            connection, _ = server.accept()
            with connection, pytest.raises(ssl.SSLError), context.wrap_socket(connection, server_side=True):
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        finding = found(
            {"own": Channel(provider="standard", secrets=(SECRET,), reply_url=f"https://localhost:{port}/a-secret")}
        )
        thread.join()
    [detail] = finding.details
    assert detail.startswith(f"own: the certificate of https://localhost:{port} is not trusted: ")
