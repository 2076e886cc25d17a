"""What is logged of a request that ended in an error which nobody expected."""

import traceback

from onelane.telemetry.log import event


def report(error: Exception) -> None:
    """Log a bug by its type and its place: the text of an error may quote a message."""
    frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    event("request_failed", error=type(error).__name__, frames=frames)
