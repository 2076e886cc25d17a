"""Small pictures of numbers, as SVG inside the page."""

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

WIDTH: Final = 240
HEIGHT: Final = 48
FORM: Final = Markup(
    '<svg class="trend" viewBox="0 0 {width} {height}" role="img" aria-label="{label}" preserveAspectRatio="none">'
    '<polyline points="{points}"/></svg>'
)


def sparkline(values: Sequence[float], label: str) -> Markup:
    """Draw values from left to right, from 0 to the largest; `label` says what a reader of the screen cannot see."""
    most = max(values, default=0) or 1
    step = WIDTH / max(1, len(values) - 1)
    points = " ".join(
        f"{nr * step:.1f},{HEIGHT - 1 - value / most * (HEIGHT - 2):.1f}" for nr, value in enumerate(values)
    )
    return FORM.format(width=WIDTH, height=HEIGHT, label=label, points=points)
