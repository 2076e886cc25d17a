"""The planted bugs of the chaos harness: what each takes away is there to be taken away."""

import re

import pytest
import redis

from onelane.lanes.scripts import SCRIPTS, Scripts
from tests.chaos.checker.checks import CHECKS
from tests.chaos.faults.catalogue import FAULTS
from tests.chaos.mutants import patches
from tests.chaos.mutants.catalogue import MUTANTS, Mutant
from tests.chaos.mutants.planting import Patch, Script, Sql
from tests.chaos.mutants.proving import Proof
from tests.conftest import ROOT

GUARANTEES = (ROOT / "docs" / "GUARANTEES.md").read_text()
LISTED = dict(re.findall(r"^\| `([a-z0-9-]+)` \|.*\| `([a-z]+)`: [^|]+ \|$", GUARANTEES, re.MULTILINE))
"""The check that finds each bug, as the table of the guarantees has it."""


@pytest.fixture(scope="module")
def scripts() -> Scripts:
    return Scripts(redis.Redis(), SCRIPTS)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_every_planted_bug_has_its_place_in_the_code(mutant: Mutant, scripts: Scripts) -> None:
    for each in mutant.plants:
        if isinstance(each, Sql):
            assert all(each.mutated())
        elif isinstance(each, Script):
            assert each.mutated(scripts)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_every_planted_bug_can_be_called_as_what_it_replaces(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "plant", patches.must_fit)
    for each in mutant.plants:
        if isinstance(each, Patch):
            each.into_process()


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_every_planted_bug_names_faults_that_there_are(mutant: Mutant) -> None:
    assert set(mutant.faults) <= set(FAULTS)


def test_the_guarantees_list_every_planted_bug_and_the_check_that_finds_it() -> None:
    assert LISTED.keys() == MUTANTS.keys()
    assert {name: check for name, check in LISTED.items() if check not in MUTANTS[name].seen_by} == {}
    assert f"one of {len(MUTANTS)} bugs" in GUARANTEES


def test_every_planted_bug_names_checks_that_there_are() -> None:
    checks = {check.__module__.rpartition(".")[2] for check in CHECKS}
    assert {check for mutant in MUTANTS.values() for check in mutant.seen_by} <= checks


def test_a_bug_is_seen_only_where_the_same_run_without_it_is_clean() -> None:
    found = [{"provider": 3}, {"provider": 1, "calm": 1}]
    assert Proof("statuses-down", found, [{}, {"calm": 2}], "", 0.0).is_seen
    assert not Proof("statuses-down", found, [{}, {"provider": 1}], "", 0.0).is_seen
    assert not Proof("statuses-down", [{"calm": 1}] * 2, [{}] * 2, "", 0.0).is_seen
