"""The result of a check of the doctor."""

from dataclasses import dataclass
from enum import StrEnum

from onelane.config import Settings
from onelane.lanes.lanes import Lanes
from onelane.model import Value
from onelane.postgres.db import Database


class Health(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(Value):
    """The outcome of one check."""

    health: Health
    found: str
    """The facts, in one line."""
    todo: str = ""
    """What to do about it; empty when all is well."""
    details: tuple[str, ...] = ()
    """One line for each thing that is wrong."""


@dataclass(frozen=True)
class Deployment:
    """The servers and settings that are examined."""

    settings: Settings
    database: Database
    lanes: Lanes


def ok(found: str) -> Finding:
    """Return that all is well."""
    return Finding(health=Health.OK, found=found)


def warning(found: str, todo: str, details: tuple[str, ...] = ()) -> Finding:
    """Return that work goes on, but somebody should look at it."""
    return Finding(health=Health.WARNING, found=found, todo=todo, details=details)


def failed(found: str, todo: str, details: tuple[str, ...] = ()) -> Finding:
    """Return that a promise is broken, or will be."""
    return Finding(health=Health.FAILED, found=found, todo=todo, details=details)
