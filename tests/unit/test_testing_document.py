"""What docs/TESTING.md shows is run, as a bot author would: each block in its file, then pytest."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onelane.testing import plugin
from tests.conftest import ROOT

TITLED = re.compile(r'^```\w+ title="([\w.]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BLOCKS = dict(TITLED.findall((ROOT / "docs" / "TESTING.md").read_text()))
REAL = "test_real.py"
WITHIN_S = 120


def run_pytest(folder: Path, *arguments: str) -> str:
    """Write the blocks down and run tests; return what pytest prints."""
    for name, text in BLOCKS.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:valkey", "-W", "error", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_of_python_has_a_name() -> None:
    text = (ROOT / "docs" / "TESTING.md").read_text()
    assert text.count("```python") == sum(name.endswith(".py") for name in BLOCKS) > 4


@pytest.mark.slow
def test_the_tests_that_the_page_shows_pass(tmp_path: Path) -> None:
    shown = sum(text.count("\ndef test_") for text in BLOCKS.values()) - BLOCKS[REAL].count("\ndef test_")
    assert f"{shown} passed" in run_pytest(tmp_path, f"--ignore={REAL}")


@pytest.mark.slow
def test_the_tests_on_real_servers_that_the_page_shows_pass(tmp_path: Path) -> None:
    assert "1 passed" in run_pytest(tmp_path, REAL)


def test_the_plugin_costs_those_nothing_who_do_not_use_it() -> None:
    code = (
        "import sys, onelane.testing.plugin; sys.exit({'pydantic', 'onelane.testing.bot'} & set(sys.modules) != set())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fixtures_without_a_bot_say_how_to_name_one(pytestconfig: pytest.Config) -> None:
    with pytest.raises(pytest.UsageError, match=r"onelane_handler = \"mybot:handle\""):
        plugin._handler(pytestconfig)
