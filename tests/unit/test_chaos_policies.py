"""How a chaos run is set up is said twice: to the product, and to the checker. Both mean the same."""

from typing import Any

from onelane.config import Settings
from tests.chaos.service.policies import setup
from tests.chaos.service.stack import CHANNELS, SETTINGS


def test_the_product_reads_of_the_setup_what_the_checker_is_told() -> None:
    given: dict[str, Any] = {name.lower(): value for name, value in {"CHANNELS": CHANNELS, **SETTINGS}.items()}
    settings, told = Settings(database_url="postgresql://", redis_url="redis://", **given), setup()
    read = {
        policy.channel: {**settings.channels[policy.channel].model_dump(mode="json"), **policy.model_dump(mode="json")}
        for policy in settings.policies
    }
    for name, policy in told["channels"].items():
        assert {word: read[name][word] for word in policy} == policy
    assert told["channels"].keys() == read.keys()
    numbers = (settings.lock_ttl_s, settings.worker_slots, settings.send_slots, settings.send_deadline_s)
    assert numbers == tuple(told[name] for name in ("ttl_s", "slots", "send_slots", "send_deadline_s"))
    assert (settings.attempts_max, settings.turn_timeout_s) == (told["attempts_max"], told["turn_timeout_s"])
