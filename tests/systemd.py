"""The units of docs/systemd, as systemd reads them."""

import sys
from configparser import ConfigParser
from functools import cache
from pathlib import Path

from tests.conftest import ROOT

UNITS = ROOT / "docs" / "systemd"
WEB, WORKER = "onelane-web.service", "onelane-worker@.service"
BIN = "/srv/bot/venv/bin/"
"""Where the units look for the commands; tests have them beside this interpreter."""


@cache
def text_of(unit: str) -> str:
    """Read a unit, with the commands of this environment."""
    return (UNITS / unit).read_text().replace(BIN, f"{Path(sys.executable).parent}/")


@cache
def service(unit: str) -> dict[str, str]:
    """Read a unit's section [Service]; no name stands in it twice."""
    parser = ConfigParser(interpolation=None, comment_prefixes="#", inline_comment_prefixes=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # systemd distinguishes capitals
    parser.read_string(text_of(unit))
    return dict(parser["Service"])
