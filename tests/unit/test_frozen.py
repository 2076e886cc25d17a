"""A migration that a release has had never changes: databases that have it would not get the change.

`sha256sum sql/migrations/*.sql > tests/frozen.sha256` adds a new one, once it is done.
"""

from hashlib import sha256
from pathlib import Path

from tests.conftest import ROOT

MIGRATIONS = sorted((ROOT / "sql" / "migrations").iterdir())


def test_every_migration_is_as_it_was_frozen_and_no_other_is_frozen() -> None:
    lines = (ROOT / "tests" / "frozen.sha256").read_text().splitlines()
    frozen = {path: digest for digest, path in (line.split(maxsplit=1) for line in lines)}
    assert {str(path.relative_to(ROOT)): sha256(path.read_bytes()).hexdigest() for path in MIGRATIONS} == frozen


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [number_of(path) for path in MIGRATIONS] == [f"{nr:04}" for nr in range(1, len(MIGRATIONS) + 1)]


def number_of(path: Path) -> str:
    return path.name.partition("_")[0]
