"""What can go wrong with a request, and which request it goes wrong with: the next ones, or some at random.

| kind | the request | the connection |
|---|---|---|
| `answer` | is answered, after `wait_s`; with `code`, refused so | stays open |
| `limit` | gets 429: come again after `wait_s` | stays open |
| `status` | gets the HTTP status `code`, and a page in place of the provider's body | stays open |
| `unread` | is never looked at | silent for `wait_s`, then reset |
| `silent` | is not answered | silent for `wait_s`, then reset |
| `half` | gets half of the answer | closed |
| `garbage` | gets an answer that is no HTTP | closed |
| `closed` | is not answered | closed |
| `reset` | is not answered | reset |
| `closes` | is answered; a moment later, while it is kept for the next request | closed |

`times` says how often a send is accepted nevertheless: never, once, or twice, although the sender asked once.
"""

from collections import deque
from dataclasses import asdict, dataclass
from random import Random
from types import MappingProxyType
from typing import Any, Final, Literal, Self, get_args

from onelane.model import JsonObject

Kind = Literal["answer", "limit", "status", "unread", "silent", "half", "garbage", "closed", "reset", "closes"]
What = Literal["send", "look_up", "presence", "media", "other"]
KINDS: Final = frozenset(get_args(Kind))
SILENT_S: Final = 60.0
PLANNED_MAX: Final = 100_000
TIMES_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to go wrong."""

    kind: Kind
    times: int = 0
    """How often a send is accepted all the same."""
    code: str | None = None
    """The provider's own, for `answer`; an HTTP status for `status`."""
    wait_s: float = 0.0
    later: str | None = None
    """Accepted, and then its status says that it failed, with this code."""

    @classmethod
    def of(cls, given: str | JsonObject) -> Self:
        """Read a fault: its name in FAULTS, or its fields. Raise ValueError."""
        if isinstance(given, str):
            if given not in FAULTS:
                raise ValueError(f"the fault must be one of {', '.join(FAULTS)}")
            return cls(**asdict(FAULTS[given]))
        try:
            fault = cls(**given)
        except TypeError as error:
            raise ValueError(str(error)) from None
        if fault.kind not in KINDS or fault.times not in range(TIMES_MAX + 1):
            raise ValueError(f"kind must be one of {', '.join(sorted(KINDS))}, times at most {TIMES_MAX}")
        return fault


NONE: Final = Fault("answer", times=1)
FAULTS: Final = MappingProxyType(
    {
        "none": NONE,
        "slow": Fault("answer", times=1, wait_s=2.0),
        "limit": Fault("limit", wait_s=1.0),
        "500": Fault("status", code="500"),
        "502_accepted": Fault("status", times=1, code="502"),
        "503": Fault("status", code="503"),
        "unread": Fault("unread", wait_s=SILENT_S),
        "silent": Fault("silent", wait_s=SILENT_S),
        "accept_and_silent": Fault("silent", times=1, wait_s=SILENT_S),
        "half": Fault("half"),
        "accept_and_half": Fault("half", times=1),
        "garbage": Fault("garbage"),
        "accept_and_garbage": Fault("garbage", times=1),
        "closed": Fault("closed"),
        "accept_and_drop": Fault("closed", times=1),
        "reset": Fault("reset"),
        "accept_and_reset": Fault("reset", times=1),
        "accept_twice": Fault("answer", times=2),
        "closes": Fault("closes", times=1),
    }
)
"""Faults of every provider, by name. Those of one provider are the codes that its API refuses with."""
NAMES: Final = MappingProxyType({fault: name for name, fault in FAULTS.items()})


@dataclass(frozen=True, slots=True)
class _Planned:
    fault: Fault
    channel: str | None
    what: str | None
    text: str

    def is_for(self, channel: str, what: str, text: str) -> bool:
        return self.channel in {None, channel} and self.what in {None, what} and self.text in text


class _Chance:
    """Some requests, at random: the same ones with the same seed."""

    def __init__(self, choices: tuple[_Planned, ...], share: float, seed: int) -> None:
        self._choices = choices
        self._share = share
        self._random = Random(seed)  # noqa: S311 - to be repeated, not to be secret

    def take(self, what: str) -> Fault:
        fitting = [choice.fault for choice in self._choices if choice.what in {None, what}]
        return self._random.choice(fitting) if fitting and self._random.random() < self._share else NONE


class Plan:
    """Decides about each request: first what is planned for it, then chance, else nothing goes wrong."""

    def __init__(self) -> None:
        self._next: deque[_Planned] = deque()
        self._chances: dict[str | None, _Chance] = {}

    @property
    def planned(self) -> int:
        """How many faults wait for their request."""
        return len(self._next)

    def take(self, channel: str, what: str, text: str) -> Fault:
        """Return what happens to a request."""
        for planned in self._next:
            if planned.is_for(channel, what, text):
                self._next.remove(planned)
                return planned.fault
        chance = self._chances.get(channel) or self._chances.get(None)
        return chance.take(what) if chance else NONE

    def add(self, given: JsonObject) -> None:
        """Plan `faults`, each for the next `count` requests; of one `channel`, or with `text`, if it says so.

        Raise ValueError.
        """
        count = int(given.get("count", 1))
        if not 1 <= count <= PLANNED_MAX - self.planned:
            raise ValueError(f"at most {PLANNED_MAX} faults can be planned")
        for planned in _planned(given):
            self._next.extend([planned] * count)

    def play(self, given: JsonObject) -> None:
        """Let a `share` of a channel's requests, or of all, meet one of `faults`, by `seed`. Raise ValueError."""
        chance = _Chance(_planned(given), float(given.get("share", 1)), int(given.get("seed", 0)))
        self._chances[given.get("channel")] = chance

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self._next.clear()
        self._chances.clear()


def _planned(given: JsonObject) -> tuple[_Planned, ...]:
    """Read faults; what does not say what for is for sends."""
    faults: Any = given.get("faults", ())
    what = given.get("what", "send")
    channel, text = given.get("channel"), str(given.get("text") or "")
    return tuple(_Planned(Fault.of(one), channel, None if what == "any" else what, text) for one in faults)
