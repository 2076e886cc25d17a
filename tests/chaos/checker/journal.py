"""What the providers' fakes wrote down: what they were asked, what they showed, and what they said of it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.chaos.checker.records import Seen

CLEAR = frozenset({None, "slow", "answer", "closes", "accept_twice", "limit"})
"""The faults of a request that is answered whole, so that who asked knows whether the provider has the message."""
SEND, LOOK_UP = "send", "look_up"


class Request(NamedTuple):
    """A request that a fake received and understood, in the order of `n`."""

    at: float
    n: int
    channel: str
    user: str
    """Whom it is for, as the provider names a conversation."""
    key: str | None
    text: str
    what: str
    """send, look_up, presence, …"""
    fault: str | None
    """What went wrong with it, by plan."""

    @property
    def is_answered(self) -> bool:
        """Whether who asked was given a clear answer, as far as the provider goes."""
        return self.fault in CLEAR


@dataclass
class Journal:
    """All of it."""

    seen: list[Seen] = field(default_factory=list)
    told: Mapping[str, set[str]] = field(default_factory=dict)
    """What the providers said of replies, and the service has answered, by reply."""
    requests: list[Request] = field(default_factory=list)


def journal_of(lines: Iterable[Mapping[str, Any]], wall_offset_s: float) -> Journal:
    """Read the lines of a journal, whose times are the wall's."""
    journal, told = Journal(), defaultdict[str, set[str]](set)
    for line in lines:
        at = line["at"] - wall_offset_s
        if line["event"] == "visible":
            journal.seen.append(Seen(at, line["n"], line["key"], line["copy"], line["text"]))
        elif line["event"] == "callback" and line["status"] // 100 == 2:
            told[line["key"]].add(line["state"])
        elif line["event"] == "received":
            named = {name: line[name] for name in Request._fields if name != "at"}
            journal.requests.append(Request(at, **named))
    journal.told = told
    return journal


def places_of(request: Request) -> tuple[tuple[str, str], ...]:
    """Name the conversation of a request, and the one that it is a thread of."""
    root, _, thread = request.user.partition(":")
    whole = request.channel, request.user
    return (whole, (request.channel, root)) if thread else (whole,)
