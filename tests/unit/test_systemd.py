"""The units of docs/systemd: systemd finds nothing wrong with them, and they start what the Procfile starts."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from onelane.config import Settings
from onelane.errors import EXIT_CONFIG
from onelane.processes.supervisor import ENDS_S
from tests.conftest import ROOT
from tests.deploys import procfile
from tests.systemd import UNITS, WEB, WORKER, service, text_of

EXPOSURE_MAX = 20
"""Tenths of what `systemd-analyze security` calls a unit's exposure: at most 100."""
HARDENING_FROM = "CapabilityBoundingSet"


@pytest.mark.parametrize(("unit", "process"), [(WEB, "web"), (WORKER, "worker")])
def test_a_unit_migrates_and_then_starts_what_the_procfile_starts(unit: str, process: str) -> None:
    commands = procfile()
    shell, option, line = shlex.split(service(unit)["ExecStart"])
    assert (shell, option) == ("/bin/sh", "-c")
    for part, command in zip(line.split(" && exec "), (commands["release"], commands[process]), strict=True):
        program, *arguments = part.split()
        assert [Path(program).name, *arguments] == command


@pytest.mark.parametrize("unit", [WEB, WORKER])
def test_wrong_settings_end_what_a_unit_starts_with_the_code_that_is_not_started_again(
    unit: str, tmp_path: Path
) -> None:
    """Of what ends before, in an ExecStartPre=, systemd looks at no code."""
    said = service(unit)
    wrong = {"PATH": os.environ["PATH"], "DATABASE_URL": "nonsense", "REDIS_URL": "redis://localhost"}
    ended = subprocess.run(
        shlex.split(said["ExecStart"]), env=wrong, cwd=tmp_path, capture_output=True, timeout=60, check=False
    )
    assert str(ended.returncode) in said["RestartPreventExitStatus"].split()
    assert "ExecStartPre" not in said


def test_a_unit_may_take_as_long_to_stop_as_its_process_and_is_not_started_again_with_wrong_settings() -> None:
    grace_s = Settings.model_fields["shutdown_grace_s"].default + ENDS_S
    for unit in (WEB, WORKER):
        said = service(unit)
        assert grace_s < int(said["TimeoutStopSec"]) <= 30
        assert said["Restart"] == "always"
        assert str(EXIT_CONFIG) in said["RestartPreventExitStatus"].split()


def test_both_units_are_hardened_alike() -> None:
    web, worker = (list(service(unit).items()) for unit in (WEB, WORKER))
    names = [name for name, _ in web]
    hardening = web[names.index(HARDENING_FROM) :]
    assert len(hardening) > 20
    assert worker[-len(hardening) :] == hardening


def test_the_documents_name_the_units() -> None:
    text = (ROOT / "docs" / "DEPLOY.md").read_text()
    assert all(f"systemd/{unit.name}" in text for unit in UNITS.iterdir())


@pytest.mark.parametrize("unit", [WEB, WORKER])
def test_systemd_finds_nothing_wrong_with_a_unit_and_little_that_it_exposes(unit: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: apt-get install systemd")
    file = tmp_path / unit
    file.write_text(text_of(unit))
    assert _analyze("verify", file) == ""
    _analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", file)


def _analyze(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", *map(str, arguments)],
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr
