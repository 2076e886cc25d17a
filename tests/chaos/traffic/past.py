"""What the provider did before it was killed and started again: its own history, read back."""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.history import Event, read


@dataclass
class Past:
    """Empty at the first start."""

    began_at: float = field(default_factory=time.monotonic)
    """When the run's traffic began, on the clock of histories."""
    until: float = 0.0
    """How many seconds of the plan were played at most."""
    tries: Counter[str] = field(default_factory=Counter)
    """How often each delivery was tried."""
    acknowledged: set[str] = field(default_factory=set)
    """The deliveries that need no further try."""
    seqs: dict[str, int] = field(default_factory=dict)
    """The last number of each user that an answer told; 0 when none did."""
    unfinished: dict[str, Event] = field(default_factory=dict)
    """By user, the command that had begun and has no end."""


def past_of(history: Path) -> Past:
    """Read what earlier lives of this process have noted."""
    past, senders = Past(), dict[str, str]()
    events = read(history, "provider")
    if not events:
        return past
    past.began_at, past.until = events[0]["at"], events[-1]["at"] - events[0]["at"]
    for event in events:
        match event["kind"]:
            case "send":
                past.tries[event["delivery"]] += 1
                senders[event["delivery"]] = event["messages"][0]["sender"]
            case "ack":
                past.acknowledged.add(event["delivery"])
                told = max((one["seq"] for one in event["accepted"]), default=0)
                sender = senders[event["delivery"]]
                past.seqs[sender] = max(told, past.seqs.get(sender, 0))
            case "command" if event["phase"] == "begin":
                past.unfinished[event["user_id"]] = event
            case "command":
                past.unfinished.pop(event["user_id"], None)
    return past
