"""An upgrade under traffic, and back: code of two releases runs on the schema of the newer one."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import psycopg
import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.dev.stack import MIGRATE, is_ready
from onelane.postgres.migrations import migrate
from tests.conftest import ROOT, eventually
from tests.deploys import Release, Traffic, check_nothing_lost_and_in_order
from tests.processes import environment
from tests.rows import Rows
from tests.wheels import build

pytestmark = pytest.mark.slow

SOURCES = ("app", "worker", "sql")
FILES = ("pyproject.toml", "README.md", "LICENSE")
MIGRATION = "migrations/0003_upgrade_of_a_test.sql"
NEXT = {
    MIGRATION: "ALTER TABLE users ADD COLUMN of_a_test integer NOT NULL DEFAULT 0;\n",
    "functions/of_a_test.sql": """
CREATE OR REPLACE FUNCTION of_a_test(p_user_id uuid) RETURNS integer
LANGUAGE sql STABLE AS $$ SELECT of_a_test FROM users WHERE id = p_user_id $$;
""",
}
"""What the next release has in its folder sql, beside a function that it has changed."""
CHANGED = "functions/probe.sql"
BACK = """
DROP FUNCTION of_a_test;
ALTER TABLE users DROP COLUMN of_a_test;
DELETE FROM schema_files WHERE name LIKE '%of_a_test'
"""
TURNS = re.compile('"turn_ended"')


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build this release and the next, and unpack each into a folder of its own."""
    tree = tmp_path_factory.mktemp("next")
    for name in SOURCES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, tree / name)
    for name, text in NEXT.items():
        (tree / "sql" / name).write_text(text)
    with (tree / "sql" / CHANGED).open("a") as changed:
        changed.write("-- Changed in the next release.\n")
    return {
        name: unpacked(build(str(source), tmp_path_factory.mktemp("wheel")))
        for name, source in {"this": ROOT, "next": tree}.items()
    }


def unpacked(wheel: Path) -> Path:
    folder = wheel.parent / "unpacked"
    with ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


class Releases:
    """Both releases, on one database."""

    def __init__(self, wheels: dict[str, Path], settings: Settings, folder: Path) -> None:
        self._wheels = wheels
        self._settings = settings
        self._folder = folder
        self.started: list[Release] = []

    def start(self, name: str) -> Release:
        log = self._folder / "bot.log"
        self.started.append(Release(self._settings, self._folder / name, bot_log=log, pythonpath=self._path(name)))
        return self.started[-1]

    def migrate(self, name: str) -> str:
        """Run the release step of a release; return what it prints."""
        variables = environment(self._settings, pythonpath=self._path(name))
        return subprocess.run(
            MIGRATE, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    def _path(self, name: str) -> str:
        return f"{self._wheels[name]}:{ROOT}"


@pytest.fixture
def releases(wheels: dict[str, Path], settings: Settings, services: Services, tmp_path: Path) -> Iterator[Releases]:
    """Whatever is left at the end of the test is killed, and the schema is this release's again."""
    changed = settings.model_copy(update={"shutdown_grace_s": 4.0, "handler": "tests.bots:handle"})
    releases = Releases(wheels, changed, tmp_path)
    yield releases
    for release in releases.started:
        release.stack.stop(within_s=0)
    with psycopg.connect(settings.database_url, autocommit=True) as admin:
        admin.execute(BACK)
    migrate(settings.database_url)


def turns(release: Release) -> int:
    return len(TURNS.findall(release.log.read_text()))


def await_turns(*which: Release) -> None:
    """Wait until workers of each release have handled more."""
    before = [turns(one) for one in which]
    eventually(lambda: all(turns(one) > seen for one, seen in zip(which, before, strict=True)))


def test_an_upgrade_and_its_way_back_lose_nothing_and_reorder_nothing(
    releases: Releases, settings: Settings, services: Services
) -> None:
    traffic, this = Traffic(settings), releases.start("this")
    eventually(lambda: this.is_up)
    with traffic.flowing(this.port):
        traffic.await_more()
        assert MIGRATION.removesuffix(".sql") in releases.migrate("next")
        assert eventually(lambda: is_ready(this.port)), "what runs goes on, on the schema of the next release"
        next_one = releases.start("next")
        eventually(lambda: next_one.is_up)
        traffic.ports.append(next_one.port)
        await_turns(this, next_one)
        assert CHANGED.removesuffix(".sql") in releases.migrate("this"), "its functions are back"
        eventually(lambda: is_ready(next_one.port))
        await_turns(this, next_one)
        traffic.ports[:] = [this.port]
        next_one.stop()
        traffic.await_more()
    check_nothing_lost_and_in_order(Rows(services.database), traffic)
