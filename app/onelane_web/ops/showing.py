"""How the operator's pages write times, durations and other people's texts."""

from datetime import UTC, datetime
from typing import Any, Final

from flask import Flask
from markupsafe import Markup

from onelane.model import uuid_or_none
from onelane.operations.dead import last_line
from onelane_web.ops.drawing import sparkline
from onelane_web.ops.rq_state import showable

TEXT_MAX: Final = 20_000
TIME: Final = Markup('<time datetime="{machine}">{person}</time>')
MINUTE_S: Final = 60
HOUR_S: Final = 3_600


def install(app: Flask) -> None:
    """Give the templates what they write with."""
    app.jinja_env.filters.update(
        instant=instant,
        duration=duration,
        shown=shown,
        last_line=last_line,
        worker=worker,
        is_id=lambda text: uuid_or_none(text) is not None,
    )
    app.jinja_env.globals["sparkline"] = sparkline


def instant(when: datetime | None) -> Markup | str:
    """Write an instant, in UTC."""
    if when is None:
        return "-"
    at = when.astimezone(UTC)
    return TIME.format(machine=at.isoformat(), person=f"{at:%Y-%m-%d %H:%M:%S}")


def duration(seconds: float | None) -> str:
    """Write a length of time."""
    if seconds is None:
        return "-"
    if seconds < MINUTE_S:
        return f"{seconds:.1f} s"
    return f"{seconds / MINUTE_S:.0f} min" if seconds < 2 * HOUR_S else f"{seconds / HOUR_S:.0f} h"


def shown(text: Any) -> str:
    """Write what somebody else wrote: no control character, none that turns the direction of writing."""
    return showable(str(text)[:TEXT_MAX])


def worker(token: str | None) -> tuple[str, str]:
    """Take a lease's token apart: its worker's name, and its fence."""
    name, _, fence = (token or "").rpartition(":")
    return shown(name) or "a worker", shown(fence) or "?"
