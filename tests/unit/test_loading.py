"""The configured handler: what its import does wrong is said in one line, with file and line."""

import subprocess
import sys
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from onelane import importing
from onelane.config import Channel, Settings
from onelane.doctor.finding import Health
from onelane.doctor.handlers import bots_load
from onelane.errors import EXIT_CONFIG, ConfigError
from onelane.turns.loading import load, load_bots

FAILURES = {
    "def broken(:\n": "SyntaxError: invalid syntax, in {file}, line 1",
    "import os\nKEY = os.environ['NO_SUCH_KEY']\n": "KeyError: 'NO_SUCH_KEY', in {file}, line 2",
    "\nint('a secret')\n": "ValueError, in {file}, line 2",
    "import sys\nsys.exit('a secret')\n": "SystemExit, in {file}, line 2",
    "import nosuchlibrary\n": "ModuleNotFoundError: No module named 'nosuchlibrary', in {file}, line 1",
    "def ask():\n    return nosuchname\n\nask()\n": "NameError: name 'nosuchname' is not defined, in {file}, line 2",
}


@pytest.fixture
def bot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a handler's module named `brokenbot` may be written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "brokenbot", raising=False)
    return tmp_path / "brokenbot.py"


@pytest.mark.parametrize("text", FAILURES)
def test_a_bot_that_cannot_be_imported_is_told_in_one_line_with_file_and_line(bot: Path, text: str) -> None:
    bot.write_text(text)
    with pytest.raises(ConfigError) as failed:
        load("brokenbot:handle")
    assert str(failed.value) == f"HANDLER: cannot import brokenbot: {FAILURES[text].format(file=bot)}"


def test_a_module_that_is_not_there_has_no_place() -> None:
    with pytest.raises(
        ConfigError, match=r"ModuleNotFoundError: No module named 'nosuchbot'; is nosuchbot.py in this folder\?$"
    ):
        load("nosuchbot:handle")


def test_a_function_that_is_not_there_is_named(bot: Path) -> None:
    bot.write_text("handle = 'a text'\n")
    for name in ("handle", "nosuchfunction"):
        with pytest.raises(ConfigError, match=f"^HANDLER: brokenbot has no function {name}$"):
            load(f"brokenbot:{name}")


def test_the_functions_that_are_there_are_named(bot: Path) -> None:
    bot.write_text("from json import dumps\ndef handel(turn): ...\ndef _own(): ...\n")
    with pytest.raises(ConfigError, match=r"^HANDLER: brokenbot has no function handle; it has handel$"):
        load("brokenbot:handle")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("def broken(:\n", ["    def broken(:", "               ^", "SyntaxError: invalid syntax"]),
        ("def ask():\n    int('a')\n\nask()\n", ["    ask()", "    int('a')", "ValueError: invalid literal"]),
    ],
)
def test_in_development_the_lines_that_led_to_the_error_are_shown(
    bot: Path, monkeypatch: pytest.MonkeyPatch, text: str, lines: list[str]
) -> None:
    bot.write_text(text)
    shown = Event()
    shown.set()
    monkeypatch.setattr(importing, "shown_texts", shown)
    with pytest.raises(ConfigError) as failed:
        load("brokenbot:handle")
    assert all(line in str(failed.value) for line in lines)
    assert "importing.py" not in str(failed.value)


def test_an_import_that_hangs_ends_the_process_and_names_the_line(bot: Path) -> None:
    bot.write_text("import threading\nthreading.Event().wait(60)\n")
    program = f"import {importing.__name__} as it; it.IMPORT_MAX_S = 1; it.found('brokenbot:handle', 'HANDLER')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == EXIT_CONFIG
    said = f"onelane: HANDLER: importing brokenbot takes longer than 1 s, in {bot}, line 2\n"
    assert ended.stderr == said


def test_the_function_for_events_is_the_modules_on_event(bot: Path) -> None:
    bot.write_text("def handle(turn): ...\ndef on_event(turn, event): ...\n")
    loaded = load("brokenbot:handle")
    assert loaded.on_event is not None
    assert loaded.on_event.__name__ == "on_event"


def test_an_on_event_that_is_no_function_is_refused(bot: Path) -> None:
    bot.write_text("def handle(turn): ...\non_event = 'a text'\n")
    with pytest.raises(ConfigError, match=r"^HANDLER: brokenbot has an on_event that is no function$"):
        load("brokenbot:handle")


CANNOT = "cannot be called as"
SIGNATURES = {
    "def handle(): ...": f" has a function handle that {CANNOT} handle(turn)",
    "def handle(turn, session): ...": f" has a function handle that {CANNOT} handle(turn)",
    "def handle(turn): ...\ndef on_event(turn): ...": f" has a function on_event that {CANNOT} on_event(turn, event)",
    "def handle(turn): ...\ndef on_start(): ...": f" has a function on_start that {CANNOT} on_start(turn)",
    "def handle(turn): ...\ndef on_failed(t): ...": f" has a function on_failed that {CANNOT} on_failed(turn, failure)",
    "def handle(turn): ...\nasync def on_start(turn): ...": (
        ": on_start is async and handle is not: make both async, or none"
    ),
}


@pytest.mark.parametrize("text", SIGNATURES)
def test_a_function_that_cannot_be_called_as_it_will_be_is_refused_as_it_is_loaded(bot: Path, text: str) -> None:
    bot.write_text(text)
    with pytest.raises(ConfigError) as failed:
        load("brokenbot:handle")
    assert str(failed.value) == f"HANDLER: brokenbot{SIGNATURES[text]}"


def test_the_doctor_names_a_bot_that_cannot_be_called(bot: Path) -> None:
    bot.write_text("def handle(): ...\n")
    settings = Settings(database_url="postgresql://h/d", redis_url="redis://h", handler="brokenbot:handle")
    finding = bots_load(SimpleNamespace(settings=settings))  # type: ignore[arg-type]
    assert finding.health is Health.FAILED
    assert "a function handle that cannot be called as handle(turn)" in finding.found


def test_whatever_takes_a_turn_is_a_handler(bot: Path) -> None:
    bot.write_text("handle = str\ndef other(turn, greeting='hi', *more): ...\n")
    for name in ("handle", "other"):
        load(f"brokenbot:{name}")


def test_a_channels_own_bot_that_cannot_be_loaded_is_named_with_its_channel() -> None:
    support = Channel(provider="standard", handler="nosuchbot:handle")
    with pytest.raises(ConfigError, match=r"^CHANNELS.support.handler: cannot import nosuchbot: "):
        load_bots(Settings(database_url="postgresql://h/d", redis_url="redis://h", channels={"support": support}))
