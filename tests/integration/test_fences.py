"""Fences that nobody can have had: from a corrupt counter, or written by hand. Leases stay apart, and turns run."""

from uuid import uuid4

import psycopg
import pytest

from onelane import keys
from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.doctor import sample
from onelane.doctor.fences import fences_are_credible
from onelane.doctor.finding import Deployment, Health
from onelane.outcomes import SettleOutcome
from tests.calls import Calls, lease, settlement
from tests.conftest import Accept, RunWorker, eventually
from tests.rows import Rows

EXACT_MAX = 2**53 - 1
"""The last number that Lua, whose numbers are doubles, tells from the next."""
ABSURD = [
    str(number)
    for number in (EXACT_MAX, 2**53, 2**53 + 1, 10**17, 2**63 - 1, 2**63, -1, 0, 1.5e15, "nonsense", "007", "")
]


@pytest.mark.parametrize("counter", ABSURD)
def test_leases_have_fences_of_their_own_whatever_the_counter_was(services: Services, counter: str) -> None:
    lanes = services.lanes
    users = [uuid4() for _ in range(4)]
    for user in users:
        lanes.enqueue(user, uuid4())
    lanes.client.set(keys.FENCE, counter)
    leases = [lease for call in range(4) for lease in lanes.lease("w", call, 1, 60).leases]
    assert len({lease.token for lease in leases}) == 4
    assert [lease.fence for lease in leases] == sorted({lease.fence for lease in leases})
    assert all(0 < lease.fence < EXACT_MAX // 2 for lease in leases)


@pytest.mark.parametrize("fence", [10**16, EXACT_MAX])
def test_the_counter_is_not_raised_to_what_no_lease_can_have_had(services: Services, fence: int) -> None:
    before = services.lanes.raise_fence(0)
    assert services.lanes.raise_fence(fence) == before


@pytest.mark.parametrize("written", [3 * 10**15, EXACT_MAX])
def test_a_user_s_turns_go_on_under_a_fence_that_no_lease_can_have_had(
    services: Services, rows: Rows, settings: Settings, accept: Accept, run_worker: RunWorker, written: int
) -> None:
    messages = [accept("alice", f"text {nr}") for nr in range(3)]
    user_id = messages[0].user_id
    rows.set_fence(user_id, written)
    assert fences_are_credible(_deployment(services)).health is Health.WARNING
    services.lanes.client.set(keys.FENCE, 2**53)
    with run_worker(settings):
        eventually(lambda: rows.processed(user_id) == [1, 2, 3])
    assert rows.user(user_id).fence < EXACT_MAX // 2
    assert fences_are_credible(_deployment(services)).health is Health.OK


def test_postgres_refuses_a_turn_under_a_fence_that_no_lease_can_have(
    services: Services, rows: Rows, accept: Accept
) -> None:
    user_id = accept("alice").user_id
    calls = Calls(services.database)
    [begun] = calls.begin(lease(user_id, fence=10**16))
    assert (begun["outcome"], begun["fence"]) == ("fenced", 0)
    [begun] = calls.begin(lease(user_id, fence=7))
    [settled] = calls.settle(settlement(begun, fence=10**16))
    assert settled["outcome"] == SettleOutcome.FENCED
    assert rows.states(user_id) == ["received"]


@pytest.mark.parametrize("fence", [-1, 2**53])
def test_postgres_stores_no_fence_that_a_script_cannot_count(
    services: Services, rows: Rows, accept: Accept, fence: int
) -> None:
    user_id = accept("alice").user_id
    with pytest.raises(psycopg.errors.CheckViolation):
        rows.set_fence(user_id, fence)


def test_of_many_users_the_doctor_looks_at_some_anywhere(
    services: Services, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read all of them, which takes longer than a statement may where there are millions."""
    monkeypatch.setattr(sample, "USERS_MAX", 10)
    users = [rows.make_user("demo", f"user {nr}") for nr in range(30)]
    assert fences_are_credible(_deployment(services)).found.endswith("; users looked at: 10")
    for user_id in users:
        rows.set_fence(user_id, 3 * 10**15)
    found = [fences_are_credible(_deployment(services)) for _ in range(20)]
    assert {one.found.partition(" users")[0] for one in found} == {"10 of 10"}
    assert len({shown for one in found for shown in one.details}) > 15


def test_the_doctor_shows_a_counter_that_is_none(services: Services) -> None:
    services.lanes.client.set(keys.FENCE, 2**53)
    finding = fences_are_credible(_deployment(services))
    assert (finding.health, str(2**53) in finding.found) == (Health.WARNING, True)


def _deployment(services: Services) -> Deployment:
    return Deployment(services.settings, services.database, services.lanes)
