"""The doctor's checks for who looks at a page: as many as there is time for. The web imports no bot."""

from collections.abc import Sequence
from threading import Lock
from time import monotonic
from typing import Final

from flask import Blueprint, render_template

from onelane.bootstrap import Services
from onelane.doctor.examination import QUICK, WITHOUT_BOTS, Check, Examined, examine
from onelane.doctor.finding import Deployment, Health
from onelane.doctor.lanes import SETTLE_S

CHECK_S: Final = SETTLE_S + 2.0
"""The checks of lanes read a doubtful lane again for SETTLE_S; the rest is for what they read."""
CHECKS_S: Final = 13.0
"""After so long no further check begins. With the time of the last one it is less than gunicorn's graceful_timeout."""
QUICK_CHECK_S: Final = 0.1
QUICK_CHECKS_S: Final = 0.2


def add_to(pages: Blueprint, services: Services) -> None:
    """Add the doctor's page."""
    one_at_a_time = Lock()  # a check may keep a connection, of which the web has two

    @pages.get("/doctor")
    def doctor() -> str:
        return render_template("ops/doctor.html", examined=None)

    @pages.post("/doctor")
    def examination() -> str:
        """Run the checks, as far as there is time: what they write they remove again."""
        if not one_at_a_time.acquire(blocking=False):
            return render_template("ops/doctor.html", examined=None, is_taken=True)
        try:
            examined = _examined(services, WITHOUT_BOTS, CHECK_S, CHECKS_S)
        finally:
            one_at_a_time.release()
        return render_template("ops/doctor.html", examined=examined, not_made=len(WITHOUT_BOTS) - len(examined))


def quick_faults(services: Services) -> list[Examined]:
    """Make the quick checks, and return those that found something."""
    examined = _examined(services, QUICK, QUICK_CHECK_S, QUICK_CHECKS_S)
    return [one for one in examined if one.finding.health is not Health.OK]


def _examined(services: Services, checks: Sequence[Check], each_s: float, within_s: float) -> list[Examined]:
    """Make the checks one after the other, as long as there is time for another."""
    ends = monotonic() + within_s
    deployment = Deployment(services.settings, services.database, services.lanes)
    examined = []
    for one in examine(deployment, checks, deadline_s=each_s):
        examined.append(one)
        if monotonic() >= ends:
            break
    return examined
