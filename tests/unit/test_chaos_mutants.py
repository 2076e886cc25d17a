"""The planted bugs of the chaos harness: what each takes away is there to be taken away."""

import pytest
import redis

from onelane.lanes.scripts import SCRIPTS, Scripts
from tests.chaos.faults.catalogue import FAULTS
from tests.chaos.mutants import patches
from tests.chaos.mutants.catalogue import MUTANTS, Mutant
from tests.chaos.mutants.planting import Patch, Script, Sql


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
