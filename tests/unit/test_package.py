"""The package's own names: what a bot imports, and what a helper process does not pay for."""

import os
import subprocess
import sys

import pytest

import onelane


def test_a_bot_finds_every_name_in_the_package() -> None:
    for name in onelane.__all__:
        assert getattr(onelane, name).__name__ == name
        assert name in dir(onelane)


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        _ = onelane.Nothing


def test_the_process_that_renews_leases_does_not_import_pydantic() -> None:
    """It would cost each worker 9 MB."""
    code = "import sys, onelane.lanes.renewer; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_terminal_that_lacks_a_letter_gets_the_others() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    asked = [sys.executable, "-m", "onelane", "send", "--help"]
    shown = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "'TEXT 1', 'TEXT 2', \\u2026" in " ".join(shown.split())
