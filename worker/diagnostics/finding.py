"""What a check of the doctor has found."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from worker.config import Settings
from worker.db import Database
from worker.lanes import Lanes
from worker.model import Value
from worker.scripts import SCRIPTS, Scripts


class Health(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(Value):
    """The outcome of one check."""

    health: Health
    found: str
    """What is the case, in one line."""
    todo: str = ""
    """What to do about it; empty when all is well."""
    details: tuple[str, ...] = ()
    """One line for each thing that is wrong."""


@dataclass(frozen=True)
class Patient:
    """What is examined."""

    settings: Settings
    database: Database
    lanes: Lanes

    @cached_property
    def redis(self) -> Scripts:
        """What Redis is asked through: its outages become ours."""
        return Scripts(self.lanes.client, SCRIPTS)


def ok(found: str) -> Finding:
    """Say that all is well."""
    return Finding(health=Health.OK, found=found)


def warning(found: str, todo: str, details: tuple[str, ...] = ()) -> Finding:
    """Say that work goes on, but somebody should look."""
    return Finding(health=Health.WARNING, found=found, todo=todo, details=details)


def failed(found: str, todo: str, details: tuple[str, ...] = ()) -> Finding:
    """Say that a promise is or will be broken."""
    return Finding(health=Health.FAILED, found=found, todo=todo, details=details)
