"""The conformance kit finds what an application does wrongly, and nothing in one that does it right."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from onelane.channels import Inbound, Provider, provider_of
from onelane.config import Channel
from onelane.deliveries import Delivery, Kind
from onelane.errors import EXIT_CONFIG, DeliveryError
from onelane.testing.conformance.__main__ import main
from onelane.testing.conformance.application import Wsgi
from onelane.testing.conformance.case import PROVIDERS, cases, settings_of
from onelane.testing.conformance.running import Result, run
from tests.payloads import ON_THE_NET

Respond = Callable[..., Any]


@dataclass
class Application:
    """A small application of somebody else: it takes what is signed, each message once, unless it is told otherwise."""

    provider: str
    bug: str = ""
    taken: list[str] = field(default_factory=list)

    def __call__(self, environ: Mapping[str, Any], respond: Respond) -> Iterable[bytes]:
        if self.bug == "raises":
            raise RuntimeError(self.bug)
        status, body = self.answer(environ["REQUEST_METHOD"], received(environ))
        respond(f"{status} Whatever", [])
        return [body.encode()]

    def answer(self, method: str, request: Inbound) -> tuple[int, str]:
        adapter = adapter_of(self.provider)
        try:
            if method == "GET":
                return 200, adapter.handshake(request).body
            if self.bug != "unsigned":
                adapter.verify(request)
            parsed = adapter.parse(request)
        except DeliveryError as refusal:
            return (200 if self.bug == "takes everything" else refusal.status), request.url * (self.bug == "echoes")
        for item in parsed.items:
            if isinstance(item, Delivery) and item.kind == Kind.MESSAGE:
                self.take(item.external_id)
        return (500 if self.bug == "fails" else 200), parsed.answer.body if parsed.answer else ""

    def take(self, name: str) -> None:
        if self.bug != "forgets" and (self.bug == "twice" or name not in self.taken):
            self.taken.append(name)

    def ids(self) -> list[str]:
        return self.taken


@cache
def adapter_of(provider: str) -> Provider:
    return provider_of(Channel(provider=provider, **settings_of(provider)))


def received(environ: Mapping[str, Any]) -> Inbound:
    headers = {name[5:].lower().replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
    query = environ["QUERY_STRING"]
    url = f"{environ['wsgi.url_scheme']}://{environ['HTTP_HOST']}{environ['PATH_INFO']}" + f"?{query}" * bool(query)
    return Inbound(url, headers, environ["CONTENT_TYPE"], environ["wsgi.input"].read())


def result_of(application: Application) -> Result:
    chosen = [case for case in cases() if case.provider == application.provider]
    [result] = run(application, chosen, lambda name: f"https://bot.example/{name}", application.ids)
    return result


def asked(result: Result) -> set[str]:
    """Return what was asked where the answer was wrong."""
    return {line.partition(", ")[2].partition(":")[0] for line in result.wrong}


def test_every_provider_that_comes_over_the_net_has_cases() -> None:
    assert list(PROVIDERS) == ON_THE_NET


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_application_that_does_it_right_hears_nothing(provider: str) -> None:
    result = result_of(Application(provider))
    assert result.wrong == []
    assert result.questions > 3 * result.cases


@pytest.mark.parametrize(
    ("provider", "bug", "found"),
    [
        ("twilio", "raises", {"signed", "not signed", "delivered again", "one bit of the body changed"}),
        ("slack", "fails", {"signed", "delivered again"}),
        ("standard", "unsigned", {"not signed", "signed an hour ago", "one bit of the signature changed"}),
        ("telegram", "unsigned", {"not signed", "one bit of the signature changed"}),
        ("slack", "takes everything", {"not signed", "signed an hour ago", "one bit of the body changed"}),
        ("meta", "echoes", {"handshake"}),
        ("twilio", "twice", {"delivered again"}),
        ("meta", "forgets", {"signed"}),
    ],
)
def test_what_is_wrong_is_found_by_the_question_that_asks_for_it(provider: str, bug: str, found: set[str]) -> None:
    assert found <= asked(result_of(Application(provider, bug)))


def test_the_command_prints_the_channels_that_an_application_must_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--channels"]) == 0
    channels = json.loads(capsys.readouterr().out)
    assert list(channels) == list(PROVIDERS)
    assert all(provider_of(Channel(**one)) for one in channels.values())


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Wsgi], str]:
    """Put an application where a command finds it by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "somebodys.py").touch()

    def named(application: Wsgi) -> str:
        import somebodys  # type: ignore[import-not-found]  # noqa: PLC0415 - it has just been written

        monkeypatch.setattr(somebodys, "application", application, raising=False)
        return "somebodys:application"

    return named


@pytest.mark.parametrize(("bug", "code"), [("", 0), ("unsigned", 1)])
def test_the_command_exits_with_one_when_an_answer_is_wrong(
    bug: str, code: int, named: Callable[[Wsgi], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([named(Application("standard", bug)), "--provider", "standard"]) == code
    [*wrong, last] = capsys.readouterr().out.splitlines()
    assert last.startswith("standard: ")
    assert last.endswith(f" {len(wrong)} wrong")
    assert bool(wrong) == bool(code)


def test_an_application_that_cannot_be_found_is_named(
    named: Callable[[Wsgi], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["nobodys:application"]) == EXIT_CONFIG
    assert "nobodys" in capsys.readouterr().err
