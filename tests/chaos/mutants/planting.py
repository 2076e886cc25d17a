"""How a bug gets into the service: by changing SQL, a script, or Python."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

import psycopg

from onelane.lanes.scripts import Scripts
from onelane.postgres.migrations import shipped_code
from tests.chaos.mutants.patches import plant


@dataclass(frozen=True)
class Sql:
    """Changes functions of the database, each of which has all that is to be replaced."""

    changes: Mapping[str, str]
    functions: tuple[str, ...]

    def into_database(self, url: str) -> None:
        """Replace the functions."""
        with psycopg.connect(url) as connection:
            for text in self.mutated():
                connection.execute(text.encode())

    def mutated(self) -> Iterator[str]:
        """Go through the changed functions."""
        for name in self.functions:
            text = shipped_code()[f"functions/{name}"]
            for right, wrong in self.changes.items():
                text = _mutated(text, right, wrong)
            yield text


@dataclass(frozen=True)
class Statement:
    """Does something else to the database."""

    text: str

    def into_database(self, url: str) -> None:
        """Run it."""
        with psycopg.connect(url) as connection:
            connection.execute(self.text.encode())


@dataclass(frozen=True)
class Script:
    """Changes a script, its prelude included."""

    name: str
    right: str
    wrong: str

    def into_process(self) -> None:
        """Change the scripts that are read from now on."""
        read = Scripts.__init__

        def read_mutated(scripts: Scripts, *args: Any, **kwargs: Any) -> None:
            read(scripts, *args, **kwargs)
            scripts._texts[self.name] = text = self.mutated(scripts)
            scripts._digests[self.name] = sha1(text.encode(), usedforsecurity=False).hexdigest()

        plant(Scripts, "__init__", read_mutated)

    def mutated(self, scripts: Scripts) -> str:
        """Return the changed script."""
        return _mutated(scripts._texts[self.name], self.right, self.wrong)


@dataclass(frozen=True)
class Patch:
    """Changes Python."""

    into_process: Callable[[], None]


Plant = Sql | Statement | Script | Patch


def _mutated(text: str, right: str, wrong: str) -> str:
    if right not in text:
        raise LookupError(f"nothing to plant the bug in: {right}")
    return text.replace(right, wrong)
