"""What the providers' own libraries sign, sent by curl to the web as it runs, and the commands of docs/CHANNELS.md."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import pytest

from onelane.bootstrap import Services
from onelane.channels import Inbound
from onelane.config import Channel, Settings
from onelane.dev.embedded.redis import free_port
from onelane.dev.run.data_folder import DataFolder
from onelane.dev.stack import Stack, web_command
from onelane.testing.conformance.case import Case, cases
from tests.conftest import ROOT
from tests.payloads import ON_THE_NET
from tests.processes import environment
from tests.rows import Rows

pytestmark = pytest.mark.slow
PUBLIC_URL = "https://bot.example"
UNSIGNED_BODIES = frozenset({"telegram"})
"""Providers that sign no body: the header is the secret itself."""
DATA_FOLDER = ".onelane"


def message_of(provider: str) -> Case:
    """Return the first case of a provider that is one message and nothing else."""
    return next(
        case
        for case in cases()
        if case.provider == provider
        and [(one["type"], one.get("kind")) for one in case.expected.get("items", [])] == [("delivery", None)]
    )


@dataclass(frozen=True)
class Web:
    """The web as the Procfile starts it, and who calls it with curl."""

    port: int
    folder: Path

    def signed(self, provider: str) -> Inbound:
        """Let the provider's own library sign a message to this web's public address."""
        unsigned = replace(message_of(provider).unsigned(), url=f"{PUBLIC_URL}/webhooks/{provider}-sdk")
        signed: Inbound = import_module(f"tests.payloads.{provider}").signed(unsigned)
        return signed

    def post(self, request: Inbound) -> int:
        """Post it to where the proxy would; return the status."""
        body = self.folder / "body"
        body.write_bytes(request.body)
        headers = {**request.headers, "content-type": request.content_type}
        options = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
        url = f"http://127.0.0.1:{self.port}{request.url.removeprefix(PUBLIC_URL)}"
        return int(self.curl("-o", "/dev/null", "-w", "%{http_code}", "--data-binary", f"@{body}", *options, url))

    def curl(self, *options: str) -> str:
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", "30", *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def web(settings: Settings, services: Services, tmp_path: Path) -> Iterator[Web]:
    demos = DataFolder(tmp_path / DATA_FOLDER)
    demos.path.mkdir()
    channels = {name: Channel(**one) for name, one in demos.demo_channels().items()}
    for name in ON_THE_NET:
        own = import_module(f"tests.payloads.{name}").SETTINGS
        channels[f"{name}-sdk"] = Channel(provider=name, public_url=PUBLIC_URL, **own)
    port = free_port()
    with Stack(tmp_path, environment(settings.model_copy(update={"channels": channels})), cwd=ROOT) as stack:
        stack.start("web", web_command(port), may_end=True)
        stack.await_web(port)
        yield Web(port, tmp_path)


def changed(text: bytes) -> bytes:
    """Change one bit, in the middle, and leave it text."""
    middle = len(text) // 2
    return text[:middle] + bytes([text[middle] ^ 1]) + text[middle + 1 :]


def changes_of(provider: str, request: Inbound) -> Iterator[Inbound]:
    """Change one bit of all that proves who sent it, one after the other."""
    if provider not in UNSIGNED_BODIES:
        yield replace(request, body=changed(request.body))
    for name, value in request.headers.items():
        if name.endswith(("signature", "signature-256", "secret-token")):
            yield replace(request, headers={**request.headers, name: changed(value.encode()).decode()})


def test_what_each_providers_library_signs_is_accepted_and_with_one_bit_changed_refused_and_not_stored(
    web: Web, rows: Rows
) -> None:
    for number, provider in enumerate(ON_THE_NET):
        request = web.signed(provider)
        changes = list(changes_of(provider, request))
        assert changes
        assert [web.post(one) for one in changes] == [401] * len(changes), provider
        assert len(rows.accepted()) == number, provider
        assert web.post(request) in {200, 202}, provider
        assert len(rows.accepted()) == number + 1, provider


def console_of_channels() -> list[tuple[str, str]]:
    """Return the commands of docs/CHANNELS.md that begin with a $, each with what it prints."""
    text = (ROOT / "docs" / "CHANNELS.md").read_text()
    [block] = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    told = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, output.rstrip("\n")) for command, _, output in (one.partition("\n") for one in told)]


def test_the_handshakes_of_the_document_answer_as_it_says(web: Web) -> None:
    commands = console_of_channels()
    assert len(commands) == 3
    for command, output in commands:
        local = command.replace("127.0.0.1:8000", f"127.0.0.1:{web.port}").replace("curl ", "curl --noproxy '*' ")
        answer = subprocess.run(["bash", "-c", local], cwd=web.folder, capture_output=True, text=True, check=True)
        assert answer.stdout == output, command
    assert "1234567" not in (web.folder / "answer").read_text()
