"""The example of docs/CHANNELS.md is a provider."""

import re
from pathlib import Path
from types import ModuleType

import pytest

from onelane.channels import PROVIDERS, Inbound, Provider, provider_of
from onelane.config import Channel
from onelane.deliveries import Delivery, Quarantined
from onelane.dev.run.data_folder import DataFolder
from onelane.errors import BadSignature
from tests.conftest import ROOT

URL = "https://bot.example/webhooks/roof"


@pytest.fixture
def pigeon(monkeypatch: pytest.MonkeyPatch) -> Provider:
    text = (ROOT / "docs" / "CHANNELS.md").read_text()
    [example] = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    module = ModuleType("pigeon")
    exec(compile(example, "docs/CHANNELS.md", "exec"), module.__dict__)
    monkeypatch.setitem(PROVIDERS, "pigeon", module.Pigeon)
    return provider_of(Channel(provider="pigeon", secrets=("sixteen-letters.",)))


def test_what_it_plays_it_understands_and_what_is_changed_it_refuses(pigeon: Provider) -> None:
    letter = Delivery(senders=pigeon.persona("alice").senders, external_id="7", text="hello")
    signed = pigeon.sign(URL, letter)
    request = Inbound(URL, {name.lower(): value for name, value in signed.headers.items()}, "", signed.body)
    pigeon.verify(request)
    [found] = pigeon.parse(request).deliveries
    assert found.model_copy(update={"raw": None}) == letter
    with pytest.raises(BadSignature):
        pigeon.verify(Inbound(URL, request.headers, "", signed.body + b" "))


def test_it_mends_texts_but_no_names_and_keeps_what_it_does_not_understand(pigeon: Provider) -> None:
    [mended] = pigeon.parse(Inbound(URL, {}, "", b'{"id": "7", "sender": "alice", "text": "a\\u0000b"}')).items
    [kept] = pigeon.parse(Inbound(URL, {}, "", b'{"id": "7", "sender": "al\\u0000ice", "text": "hello"}')).items
    assert isinstance(mended, Delivery)
    assert (mended.text, mended.repairs) == ("ab", ("nul",))
    assert isinstance(kept, Quarantined)


def test_onelane_run_has_a_channel_of_it(pigeon: Provider, tmp_path: Path) -> None:
    found = DataFolder(tmp_path).demo_channels()["pigeon"]
    assert type(provider_of(Channel(**found))) is type(pigeon)
