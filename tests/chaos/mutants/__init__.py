"""Bugs to plant, one at a time, and the proof that each is found.

A bug in SQL is planted into the run's database; one in Python or in a script into every process of the service, by
CHAOS_MUTANT, before anything is wired (`recording.install`).
"""

from tests.chaos.mutants.catalogue import MUTANTS
from tests.chaos.mutants.planting import Patch, Script, Sql, Statement
from tests.chaos.mutants.proving import main

__all__ = ["MUTANTS", "main", "plant", "plant_in_database"]


def plant(name: str) -> None:
    """Plant into this process what is to be planted there."""
    for each in MUTANTS[name].plants:
        if isinstance(each, Script | Patch):
            each.into_process()


def plant_in_database(name: str, url: str) -> None:
    """Plant into a database, once it is migrated, what is to be planted there."""
    for each in MUTANTS[name].plants:
        if isinstance(each, Sql | Statement):
            each.into_database(url)
