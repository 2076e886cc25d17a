"""How a run is set up, in the checker's words: said here once more, so that what the product reads is not believed."""

from collections.abc import Mapping
from typing import Any

from tests.chaos.service.stack import CHANNELS, SETTINGS, SLOTS, TTL_S, WORKER_NAMES

SEND_SLOTS = 32
INTERRUPT_BATCH_MAX = 20
SAID_NOTHING: Mapping[str, Any] = {
    "idle_timeout_s": 25_200,
    "escalation_timeout_s": 25_200,
    "max_age_s": None,
    "day_start": None,
    "timezone": None,
    "on_busy": "queue",
    "interrupt_max": 3,
    "collect_max_s": 8.0,
}
"""What holds for a channel that says nothing else, as it is documented."""


def setup() -> dict[str, Any]:
    """Tell what holds for all."""
    return {
        "ttl_s": TTL_S,
        "slots": SLOTS,
        "send_slots": SEND_SLOTS,
        "send_deadline_s": SETTINGS["SEND_DEADLINE_S"],
        "workers": len(WORKER_NAMES),
        "attempts_max": SETTINGS["ATTEMPTS_MAX"],
        "turn_timeout_s": SETTINGS["TURN_TIMEOUT_S"],
        "channels": {name: policy_of(channel) for name, channel in CHANNELS.items()},
    }


def policy_of(channel: Mapping[str, Any]) -> dict[str, Any]:
    """Tell what holds for a channel that is configured so."""
    said = {name: value for name, value in channel.items() if name in SAID_NOTHING}
    policy = {**SAID_NOTHING, **said}
    most = {"interrupt": INTERRUPT_BATCH_MAX, "collect": channel.get("collect_max_messages")}
    return {**policy, "batch_max": most.get(policy["on_busy"], 1)}
