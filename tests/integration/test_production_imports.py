"""What serves users imports nothing that it does not need: neither `onelane.dev` nor, untraced, OpenTelemetry."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from tests.conftest import ROOT, Accept, eventually
from tests.processes import environment, worker_process
from tests.rows import Rows

UNNEEDED = ("onelane.dev", "onelane.telemetry.open_telemetry", "opentelemetry.sdk.trace", "opentelemetry.exporter")
"""Where OpenTelemetry is installed, redis-py imports its metrics by itself."""
SHOW = f"import sys; print('unneeded:', *[name for name in sys.modules if name.startswith({UNNEEDED})])"
BOT = f"""
import sys

def handle(turn):
    return " ".join(name for name in sys.modules if name.startswith({UNNEEDED})) or "nothing"
"""
ENTRY_POINTS = ["onelane.cli", "onelane.lanes.renewer", "onelane.turns.isolated", "onelane_web.gunicorn_settings"]


def loaded_after(program: str, variables: dict[str, str]) -> list[str]:
    """Run a program in a fresh interpreter; list what of UNNEEDED it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{SHOW}"],
        env=variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.slow
@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_an_entry_point_imports_no_dev(module: str) -> None:
    assert loaded_after(f"import {module}", dict(os.environ)) == []


@pytest.mark.parametrize("is_development", [False, True])
def test_the_web_imports_nothing_that_it_does_not_need(is_development: bool, settings: Settings) -> None:
    variables = environment(settings, development=is_development, ops_password="secret")
    assert loaded_after("import onelane_web.wsgi", variables) == []


@pytest.mark.slow
@pytest.mark.parametrize("module", ["onelane.bootstrap", "onelane.turns.isolated"])
def test_the_client_for_files_is_imported_by_the_first_who_fetches_one(module: str) -> None:
    loaded = f"import sys, {module}; assert 'httpx2' not in sys.modules, 'it takes half a second'"
    assert loaded_after(loaded, dict(os.environ)) == []


@pytest.mark.slow
def test_the_replays_web_shows_that_dev_would_be_seen(settings: Settings) -> None:
    assert "onelane.dev.incident.timeline" in loaded_after("import onelane_web.development.replay", dict(os.environ))


def test_a_worker_at_work_has_imported_nothing_that_it_does_not_need(
    rows: Rows, services: Services, settings: Settings, accept: Accept, tmp_path: Path
) -> None:
    (tmp_path / "spy.py").write_text(BOT)
    user_id = accept("alice").user_id
    with worker_process(settings, handler="spy:handle", pythonpath=tmp_path):
        eventually(lambda: rows.texts(user_id) == ["nothing"])


@pytest.mark.slow
@pytest.mark.parametrize("command", [["doctor"], ["lanes"], ["dead", "list"]])
def test_an_operators_command_imports_no_dev(command: list[str], services: Services, settings: Settings) -> None:
    program = f"from onelane.cli import onelane\nonelane.main({command!r}, standalone_mode=False)"
    assert loaded_after(program, environment(settings)) == []
