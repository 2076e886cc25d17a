"""Each example's own tests pass, in a copy of its folder, as its reader runs them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/requirements.txt"))


def test_every_example_is_listed_and_complete() -> None:
    listed = (ROOT / "examples" / "README.md").read_text()
    assert len(EXAMPLES) == 5
    for folder in EXAMPLES:
        assert f"]({folder.name})" in listed
        assert {"README.md", "bot.py", "requirements.txt", "test_bot.py"} <= {one.name for one in folder.iterdir()}


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda path: path.name)
def test_the_tests_of_an_example_pass(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
