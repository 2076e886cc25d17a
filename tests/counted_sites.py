"""The bot of the incident, which notes each time that it really asks for the sites."""

import os
from pathlib import Path

from onelane.handlers import sites
from onelane.handlers.sites import Site, handle

__all__ = ["handle"]

really_listed = sites.listed


def listed() -> list[Site]:
    """Ask, and write a line to the file BOT_LOG."""
    with Path(os.environ["BOT_LOG"]).open("a") as log:
        log.write("asked\n")
    return really_listed()


sites.listed = listed
