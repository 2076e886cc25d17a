"""How long a lane waits after a failure: with the defaults long enough for what is away for a moment."""

import pytest

from onelane.config import Settings
from onelane.turns.pacing import backoff_s

OUTAGE_S = 45
"""For how long a provider may be away without a message's death."""
SHORTEST = 0.5
"""The most that jitter takes off a wait."""


@pytest.fixture
def defaults() -> Settings:
    return Settings(database_url="postgresql://db/d", redis_url="redis://lanes")


def waits_s(settings: Settings) -> list[float]:
    """Return the waits between a message's attempts, without jitter."""
    return [min(settings.retry_max_s, settings.retry_base_s * 2**nr) for nr in range(settings.attempts_max - 1)]


def test_by_default_attempts_last_two_and_a_half_minutes_and_never_less_than_an_outage(defaults: Settings) -> None:
    assert waits_s(defaults) == [5, 10, 20, 40, 80]
    assert SHORTEST * sum(waits_s(defaults)) > OUTAGE_S


def test_by_default_what_is_not_the_messages_fault_may_last_an_hour(defaults: Settings) -> None:
    assert defaults.later_max_s == 3_600


def test_a_backoff_grows_up_to_its_bound_however_often_it_failed(defaults: Settings) -> None:
    for failures, most in [(1, 5), (2, 10), (6, 160), (7, 300), (5_000, 300)]:
        assert SHORTEST * most <= backoff_s(defaults, failures) <= most
