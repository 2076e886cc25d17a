"""`onelane init` writes a bot that is tested and clean; it never overwrites, and explains why it refuses."""

import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from dotenv import dotenv_values

from onelane import channels
from onelane.cli import onelane
from onelane.commands import init as command
from onelane.config import Channel, Settings
from onelane.dev.init import PROVIDERS, create
from onelane.errors import ConfigError
from onelane.sources import channels_in
from tests.conftest import ROOT

SECRET = "whsec_" + b64encode(b"0123456789abcdef01234567").decode()
KINDS = pytest.mark.parametrize("with_model", [False, True], ids=["a function", "a model"])


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a tool in the bot's folder, as its author would."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@KINDS
def test_what_is_written_is_clean(tmp_path: Path, *, with_model: bool) -> None:
    create("mybot", tmp_path, list(PROVIDERS), with_model=with_model)
    for check in (("check", "--select=E,F,I,B,UP"), ("format", "--check")):
        done = run(tmp_path, "ruff", check[0], "--isolated", *check[1:], ".")
        assert done.returncode == 0, done.stdout


def test_the_tests_that_are_written_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create("written_bot", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    written = [act for name, act in vars(import_module("test_written_bot")).items() if name.startswith("test_")]
    assert len(written) == 3
    for act in written:
        act()


@pytest.mark.slow
@KINDS
def test_pytest_is_green(tmp_path: Path, *, with_model: bool) -> None:
    create("mybot", tmp_path, with_model=with_model)
    done = run(tmp_path, "pytest", "-q")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("You", "They"),
        ("+ 1", "+ 2"),
        ('"bye"', '"end"'),
        ("end_session", "escalate"),
        ("Goodbye", "Farewell"),
    ],
    ids=lambda word: re.sub("[^a-z]+", "-", word.lower()),
)
def test_pytest_is_red_when_one_word_of_the_bot_is_changed(tmp_path: Path, word: str, other: str) -> None:
    create("mybot", tmp_path)
    bot = tmp_path / "mybot.py"
    changed = bot.read_text().replace(word, other, 1)
    assert changed != bot.read_text()
    bot.write_text(changed)
    done = run(tmp_path, "pytest", "-q", "-x", "--tb=line")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr


def channels_of(values: Mapping[str, str | None]) -> Settings:
    given = {name: value for name, value in values.items() if value}
    return Settings(
        database_url="postgresql://h/d",
        redis_url="redis://h",
        handler=given["HANDLER"],
        channels={name: Channel.of(channel) for name, channel in channels_in(given).items()},
    )


@pytest.mark.parametrize("names", [(), *((name,) for name in PROVIDERS), tuple(PROVIDERS)], ids="-".join)
def test_the_channels_that_are_prepared_are_right_once_they_are_filled_in(tmp_path: Path, names: Sequence[str]) -> None:
    create("mybot", tmp_path, names)
    text = (tmp_path / ".env.example").read_text()
    filled = channels_of(dotenv_values(stream=StringIO(re.sub('replace this[^"]*', SECRET, text))))
    assert sorted(channels.providers(filled.channels)) == sorted(names)
    assert all(f"/webhooks/{name}`" in (tmp_path / "README.md").read_text() for name in names)
    for name, channel in channels_of(dotenv_values(stream=StringIO(text))).channels.items():
        with pytest.raises(ConfigError, match=f"^CHANNEL_{name.upper()}.secrets.0: is the example's own"):
            channels.providers({name: channel})


def test_the_command_knows_the_providers_without_importing_them() -> None:
    assert tuple(PROVIDERS) == command.PROVIDERS


def test_the_readme_shows_the_bot_that_is_written(tmp_path: Path) -> None:
    create("mybot", tmp_path)
    assert f"```python\n{(tmp_path / 'mybot.py').read_text()}```" in (ROOT / "README.md").read_text()


def test_a_deployed_bot_has_the_processes_of_ours(tmp_path: Path) -> None:
    create("mybot", tmp_path)
    assert (tmp_path / "Procfile").read_text() == (ROOT / "Procfile").read_text()


def test_the_command_makes_a_folder_and_shows_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(onelane, ["init", "mybot", "--provider", "telegram"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "onelane run mybot:handle" in done.output
    written = {line.removeprefix("wrote ") for line in done.output.splitlines() if line.startswith("wrote ")}
    assert written == {str(path.relative_to(tmp_path)) for path in (tmp_path / "mybot").iterdir()}
    assert {"mybot/mybot.py", "mybot/test_mybot.py", "mybot/Procfile", "mybot/README.md"} <= written


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("my-bot", "'my-bot' cannot be the name of a Python module"),
        ("../mybot", "cannot be the name"),
        ("class", "cannot be the name"),
        ("json", "Python has a module json already"),
        ("onelane", "Python has a module onelane already"),
    ],
)
def test_a_name_that_python_cannot_import_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        create(name, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_folder_with_anything_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mybot.py").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty: nothing was written"):
        create("mybot", tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_in_the_place_of_the_folder_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mybot").write_text("mine")
    with pytest.raises(ConfigError, match="mybot is a file"):
        create("mybot", tmp_path / "mybot")
    assert (tmp_path / "mybot").read_text() == "mine"
