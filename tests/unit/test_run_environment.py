"""What `onelane run` makes of the environment, and what it publishes to the commands of its folder."""

import json
import os
from pathlib import Path

import pytest

from onelane.commands import console
from onelane.config import Settings
from onelane.dev.run import run
from onelane.dev.run.data_folder import VARIABLE, DataFolder

BOT = {"provider": "telegram", "secrets": ["sixteen-letters."], "bot_token": "1:token"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    settings = {name.upper() for name in Settings.model_fields}
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name not in settings})
    monkeypatch.chdir(tmp_path)
    os.environ["PORT"] = "0"
    return DataFolder(tmp_path / "data")


def settled(folder: DataFolder) -> tuple[dict[str, str], set[str]]:
    """Return what is published to the commands, and of what servers of ours are started."""
    folder.path.mkdir()
    servers, _, _ = run._settled(folder, None, use_environment=False)
    return run._address(), {server.variable for server in servers}


@pytest.mark.parametrize("source", ["CHANNELS", "CHANNELS_FILE", "CHANNEL_TELEGRAM"])
def test_channels_of_ones_own_are_published_wherever_they_are_configured(folder: DataFolder, source: str) -> None:
    """`onelane send` reads what is published; the web, which runs in another folder, reads the file."""
    Path("channels.json").write_text(json.dumps({"telegram": BOT}))
    given = {"CHANNELS_FILE": "channels.json", "CHANNEL_TELEGRAM": json.dumps(BOT)}
    os.environ[source] = given.get(source) or json.dumps({"telegram": BOT})
    address, _ = settled(folder)
    published = json.loads(address["CHANNELS"])
    assert published["telegram"] == BOT
    os.chdir("/")
    assert set(Settings.from_environment().channels) == set(published)


def test_without_channels_there_is_a_demo_channel_of_each_provider(folder: DataFolder) -> None:
    address, started = settled(folder)
    assert {"demo", "telegram", "meta"} <= set(json.loads(address["CHANNELS"]))
    assert started == {"DATABASE_URL", "REDIS_URL", "CHANNELS"}


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ("CHANNELS_FILE", "channels.json"),
        ("CHANNEL_SUPPORT", json.dumps(BOT)),
        ("CHANNEL_DEMO", '{"on_busy": "collect"}'),
    ],
)
def test_a_command_beside_the_run_takes_each_channel_once_from_the_run(
    folder: DataFolder, source: str, given: str
) -> None:
    Path("channels.json").write_text(json.dumps({"support": BOT}))
    os.environ[source] = given
    exported = dict(os.environ)
    address, _ = settled(folder)
    folder.publish(address)
    os.environ.clear()
    os.environ.update({**exported, VARIABLE: str(folder.path)})
    console._use_the_run_of_this_folder()
    assert set(Settings.from_environment().channels) == set(json.loads(address["CHANNELS"]))


def test_what_fails_for_want_of_something_is_not_taken_for_another_run(folder: DataFolder) -> None:
    with pytest.raises(BlockingIOError, match="no more processes"), folder.held():
        raise BlockingIOError("no more processes")
