"""A checkout of this project, this one or an earlier one, each with an interpreter and packages of its own."""

import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.errors import BenchError

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Checkout:
    """A folder in which `make install` was run."""

    folder: Path
    interpreter: Path

    @classmethod
    def at(cls, folder: Path) -> "Checkout":
        """Find another one; raise BenchError where there is none."""
        interpreter = folder / ".venv" / "bin" / "python"
        if not interpreter.exists():
            raise BenchError(f"{folder} is no checkout, or `make install` was not run there")
        return cls(folder.resolve(), interpreter.absolute())

    @cached_property
    def package(self) -> str:
        """What its core is imported as; it got its name late."""
        return "onelane" if (self.folder / "worker" / "onelane").is_dir() else "worker"

    @cached_property
    def commit(self) -> str:
        """Its commit's short name; the folder's, where git knows nothing of it."""
        command = ["git", "-C", str(self.folder), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip() or self.folder.name

    @property
    def environment(self) -> dict[str, str]:
        """Where its interpreter finds its packages."""
        return {"PYTHONPATH": str(self.folder)}

    def command(self, name: str) -> list[str]:
        """Return one of its own commands."""
        return [str(self.interpreter), "-P", "-m", self.package, name]


HERE = Checkout(ROOT, Path(sys.executable))
