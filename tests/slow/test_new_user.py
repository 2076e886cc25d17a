"""What README and docs tell a new user to type: in a clean home, in a folder with a blank and an umlaut in its path."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from onelane.dev.embedded.child import command_line, descendants
from onelane.dev.embedded.redis import free_port
from onelane.dev.stack import Stack
from tests.conftest import ROOT, eventually
from tests.documented import blocks_of
from tests.slow.test_wheel import ENDS_S, THIS
from tests.wheels import build, pip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

README, START, CHANNELS = (ROOT / "README.md", ROOT / "docs" / "START.md", ROOT / "docs" / "CHANNELS.md")
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
ANSWERED_S = 60.0
"""From a clean environment to the first answer, with a warm package cache, on a machine that does nothing else."""
RUNS_S = 10.0
"""From `onelane run` to the first answer."""
BUSY = 5
"""How many times as slow the machine of the tests may be."""
WITHIN_S = 180.0
ONLY_OLDER = "async-timeout"
"""What Python up to 3.11.2 needs; an ordinary user may have another one than we."""


@dataclass(frozen=True)
class Newcomer:
    """Somebody at a terminal, in a folder of their own, with nothing in their home."""

    place: Path
    become: Sequence[str]
    """What is put in front of a command, so that it is theirs."""
    python: str
    shell: Mapping[str, str]

    def types(self, command: str, folder: Path | None = None) -> str:
        """Type a command that ends well, and return what it prints."""
        typed = [*self.become, "sh", "-ec", command]
        done = subprocess.run(
            typed,
            cwd=folder or self.place,
            env=self.shell,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def running(self, command: str, folder: Path, logs: Path) -> Iterator[None]:
        """Keep a service running in another terminal, and see that Ctrl-C ends all of it."""
        with Stack(logs, self.shell, cwd=folder) as stack:
            run = stack.start("run", [*self.become, "sh", "-ec", f"exec {command}"])
            stack.wait_for(lambda: "Onelane runs." in run.log.read_text(), "the start", WITHIN_S)
            family = descendants(run.pid)
            yield
            os.killpg(run.pid, signal.SIGINT)  # a terminal interrupts make, too, which ends by it
            assert run.wait(ENDS_S) in {0, 2, -signal.SIGINT}, run.log.read_text()
            eventually(lambda: not any(map(command_line, family)))


@pytest.fixture
def place() -> Iterator[Path]:
    """Make a folder that everybody may enter, as those of the tests are not."""
    with tempfile.TemporaryDirectory(prefix="onelane-") as folder:
        Path(folder).chmod(0o755)
        place = Path(folder) / "Grüße an alle"
        (place / "home").mkdir(parents=True)
        yield place


@pytest.fixture
def newcomer(request: pytest.FixtureRequest, place: Path) -> Newcomer:
    """Be ourselves (root, mostly), or, where we may, an ordinary user: PostgreSQL itself refuses root."""
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    path = os.pathsep.join([str(place / "venv" / "bin"), str(place / "onelane" / ".venv" / "bin"), os.defpath])
    shell = {**kept, "HOME": str(place / "home"), "PATH": path, "PORT": str(free_port())}
    if request.param == "ourselves":
        return Newcomer(place, (), sys.executable, shell)
    if os.getuid() != 0 or shutil.which(NOBODY[0]) is None:
        pytest.skip("only root becomes somebody else, with setpriv")
    for one in (place, place / "home"):
        shutil.chown(one, "nobody", "nogroup")
    for python in (os.path.realpath(sys.executable), f"/usr/local/bin/python{THIS}", f"/usr/bin/python{THIS}"):
        asked = [*NOBODY, "sh", "-c", f"'{python}' -m ensurepip --version"]
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            return Newcomer(place, NOBODY, python, shell)
    pytest.skip(f"an ordinary user of this machine has no Python {THIS}")


@pytest.fixture(scope="module")
def wheels() -> Iterator[Path]:
    """Put the wheel and all that it needs where everybody can read it: what a warm package cache holds."""
    with tempfile.TemporaryDirectory(prefix="onelane-") as folder:
        built = build(str(ROOT), Path(folder) / "built")
        options = ["--quiet", "--only-binary", ":all:", "--constraint", str(ROOT / "requirements-dev.txt")]
        pip("download", *options, "--dest", folder, f"{built}[embedded]", ONLY_OLDER)
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("newcomer", ["ourselves", "nobody"], indirect=True)
def test_from_nothing_to_an_answer(newcomer: Newcomer, wheels: Path, tmp_path: Path) -> None:
    newcomer = Newcomer(
        newcomer.place,
        newcomer.become,
        newcomer.python,
        {**newcomer.shell, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels.as_uri(), "PIP_CONFIG_FILE": os.devnull},
    )
    install, make, run = blocks_of(README)[0]
    at_start, talk, tests = blocks_of(START)
    assert at_start == [install, *make.split(" && "), run]
    began = time.monotonic()
    newcomer.types(f"'{newcomer.python}' -m venv venv && {install}")
    installed = time.monotonic()
    newcomer.types(make)
    folder = newcomer.place / "mybot"
    for command in tests:
        newcomer.types(command, folder)
    tested = time.monotonic()
    with newcomer.running(run, folder, tmp_path):
        first, *others = (newcomer.types(command, folder) for command in talk[:1])
        answered = time.monotonic()
        assert first.startswith("You said: hello (message 1)   (session ")
        for command in talk[1:]:
            others.append(newcomer.types(command, folder))
    assert re.findall(r"message (\d)\)", "".join(others)) == ["2", "3", "4", "5", "6"]
    print(  # noqa: T201 - the numbers of the run
        f"\ninstalled {installed - began:.1f} s, tested {tested - installed:.1f} s, answered {answered - tested:.1f} s"
    )
    assert answered - began < ANSWERED_S * BUSY
    assert answered - tested < RUNS_S * BUSY


@pytest.mark.parametrize("newcomer", ["nobody"], indirect=True)
def test_the_commands_of_a_checkout(newcomer: Newcomer, wheels: Path, tmp_path: Path) -> None:
    """As an ordinary user; the tests themselves are what root does in a checkout."""
    checkout = newcomer.place / "onelane"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in (one for one in listed.split("\0") if (ROOT / one).is_file()):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    as_installed(newcomer, checkout, wheels)
    make_run = blocks_of(README)[1][0]
    with newcomer.running(make_run, checkout, tmp_path):
        said = [newcomer.types(command, checkout) for command in blocks_of(README)[2]]
        hello, quick, meta, still_me, incident = said
        assert [one.count("(session ") for one in (hello, quick, meta, still_me)] == [1, 5, 1, 1]
        assert session_in(meta) == session_in(still_me)
        assert "Champigny found     yes" in incident
        talk = next(block for block in blocks_of(CHANNELS) if block[0].startswith("onelane send"))
        accepted = newcomer.types("onelane send --provider meta --user alice --no-wait hello", checkout)
        [reacted] = re.findall(r"\bmsg_\w+", accepted)
        for command in talk:
            if "--status" not in command:  # that names a reply of theirs
                newcomer.types(command.replace(" ID", f" {reacted}"), checkout)


def session_in(said: str) -> str:
    """Read a session's id out of what `onelane send` prints."""
    return re.findall(r"\(session (\S+),", said)[0]


def as_installed(newcomer: Newcomer, checkout: Path, wheels: Path) -> None:
    """Do what `make install` does, with the packages of these tests: linked, not copied, and owned by the newcomer."""
    for path in (checkout, *checkout.rglob("*")):
        shutil.chown(path, "nobody", "nogroup")
    newcomer.types(f"'{newcomer.python}' -m venv --without-pip .venv", checkout)
    packages = sysconfig.get_path("purelib")
    [own] = (checkout / ".venv").glob("lib/python*/site-packages")
    ignored = shutil.ignore_patterns("*onelane.pth")
    shutil.copytree(packages, own, ignore=ignored, copy_function=link, dirs_exist_ok=True)
    pip("install", "--quiet", "--no-index", "--find-links", str(wheels), "--target", str(own), ONLY_OLDER)
    (own / "checkout.pth").write_text(f"{checkout / 'worker'}\n{checkout / 'app'}\n", encoding="utf-8")
    command = checkout / ".venv" / "bin" / "onelane"
    command.write_text(f"#!/bin/sh\nexec '{checkout}/.venv/bin/python' -m onelane \"$@\"\n", encoding="utf-8")
    command.chmod(0o755)
    (checkout / ".venv" / ".installed").touch()


def link(source: str, target: str) -> str:
    """Link a file, or copy it where the two are not on one disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
