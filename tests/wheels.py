"""Wheels, built and installed as people do, without a network."""

import subprocess
import sys
from pathlib import Path


def build(target: str, folder: Path) -> Path:
    """Build a wheel of the source tree or archive `target`; it gets no network and no folder of ours."""
    command = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), target]
    pip(*command)
    [wheel] = folder.glob("*.whl")
    return wheel


def pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
