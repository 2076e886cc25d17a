"""A bot that cannot answer, and says so when a message dies."""

import os

from onelane.bot import Failure, Turn


def handle(turn: Turn) -> None:
    """Fail."""
    raise ValueError


def on_failed(turn: Turn, failure: Failure) -> str:
    """Say why, and in which process."""
    where = "here" if os.getppid() == int(turn.message.text) else "elsewhere"
    return f"{failure.error.splitlines()[-1]}, said {where}"
