"""What tests, benchmarks and `onelane run` put in the place of the world outside. No production process imports it.

A bot author's tests begin with `Bot`: see docs/TESTING.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onelane.testing.bot import Answer, Bot, Outcome, Person

__all__ = ["Answer", "Bot", "Outcome", "Person"]


def __getattr__(name: str) -> object:
    """Import a name when it is first used: the fakes' own processes need none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("onelane.testing.bot"), name)
