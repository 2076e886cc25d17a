"""The doctor's checks have a deadline each; that of the bots is their own."""

from threading import Event, Timer
from typing import Any

from onelane.doctor.examination import BOTS, CHECKS, WITHOUT_BOTS, Check, examine
from onelane.doctor.finding import Finding, Health, ok
from onelane.importing import IMPORT_MAX_S
from tests.conftest import DEADLINE_S

DEPLOYMENT: Any = None


def _only(check: Check, deadline_s: float) -> Finding:
    [examined] = examine(DEPLOYMENT, [check], deadline_s=deadline_s)
    return examined.finding


def test_a_bot_may_take_about_as_long_to_import_as_in_a_worker_and_ends_no_doctor_before_its_answer() -> None:
    assert IMPORT_MAX_S - 5 < (BOTS.within_s or 0) < IMPORT_MAX_S
    assert (*WITHOUT_BOTS, BOTS) == CHECKS


def test_a_checks_own_deadline_counts_in_place_of_the_others() -> None:
    may_end = Event()

    def look(_: object) -> Finding:
        assert may_end.wait(DEADLINE_S)
        return ok("looked")

    assert _only(Check("slow", look), 0.01).found == "no answer within 0.01 s"
    late = _only(Check("slow", look, within_s=0.01, late="wait"), 30)
    assert (late.health, late.found, late.todo) == (Health.FAILED, "no answer within 0.01 s", "wait")
    Timer(0.1, may_end.set).start()
    assert _only(Check("slow", look, within_s=DEADLINE_S), 0.01).health is Health.OK
