"""What is explored: how much of everything there is, and what may go wrong."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from tests.explore.state import Budget, Reply, State, User, Worker


class Setting(NamedTuple):
    """What is explored: how much of everything there is."""

    users: int = 1
    messages: int = 2
    """Of each user."""
    batch_max: int = 1
    quantum: int = 2
    answers: bool = True
    """Whether the bot answers: without, nothing happens on out lanes."""
    is_answered: bool = False
    """Whether all messages are processed as it begins: then nothing happens on in lanes."""
    on_unknown: str = "ask"
    """The channel's rule: its provider can be asked (`ask`), drops what it has (`resend`), or neither (`leave`)."""
    budget: Budget = Budget()

    def start(self) -> State:
        user = User()
        if self.is_answered:
            said = tuple(range(1, self.messages + 1))
            user = User(self.messages, done=said, replies=tuple(map(Reply, said)))
        return State((user,) * self.users, (Worker(), Worker()), self.budget)


def _of(setting: Setting, crashes: int = 0, expiries: int = 0, **more: int) -> Setting:
    return setting._replace(budget=Budget(crashes, expiries, **more))


BOTH, TURNS, SENDS = Setting(), Setting(answers=False), Setting(is_answered=True)
SMALL: Final[Mapping[str, Setting]] = {"turns of two messages": _of(TURNS, 1, 1)}
QUICK: Final[Mapping[str, Setting]] = {
    "both lanes of one message": _of(BOTH._replace(messages=1), 1, 1),
    "turns of two users": _of(TURNS._replace(users=2, messages=1), 1, 1),
    "turns of somebody who is paused": _of(TURNS, 0, 1, pauses=1),
    "sends to a provider that can be asked": _of(SENDS, 1, 1, losses=1),
    "sends to one that drops what it has": _of(SENDS._replace(on_unknown="resend"), 1, 1, losses=1),
    "sends to one that tells nothing": _of(SENDS._replace(on_unknown="leave"), 1, 1, losses=1),
}
"""What CI looks at."""
LONG: Final[Mapping[str, Setting]] = {
    **QUICK,
    "both lanes of two messages, a crash": _of(BOTH, 1, 0),
    "both lanes of two messages, an expiry": _of(BOTH, 0, 1),
    "both lanes of one message, an expiry and a FLUSHALL": _of(BOTH._replace(messages=1), 0, 1, flushes=1),
    "both lanes of one message, a crash and a loss": _of(BOTH._replace(messages=1), 1, 0, losses=1),
    "turns of somebody who is paused twice, and a crash": _of(TURNS, 1, 0, pauses=2),
    "turns of two messages, and all that may happen": _of(TURNS, 1, 1, flushes=1, losses=1),
    "turns of two users with two messages": _of(TURNS._replace(users=2), 0, 1),
    "turns of three messages, two at a time": _of(TURNS._replace(messages=3, batch_max=2), 1, 1, failures=1),
    "sends, and twice what may happen": _of(SENDS, 2, 2, losses=2),
}
"""What `make explore` looks at."""
ANYTHING: Final = Budget(crashes=2, expiries=3, flushes=1, losses=2, failures=1, laps=2, rewinds=1)
WALKED: Final[Mapping[str, Setting]] = {
    "two users": Setting(users=2, budget=ANYTHING),
    "batches": Setting(messages=3, batch_max=2, budget=ANYTHING._replace(pauses=2)),
    "one at a time": Setting(messages=3, quantum=1, on_unknown="resend", budget=ANYTHING),
    "who tells nothing": Setting(messages=2, on_unknown="leave", budget=ANYTHING),
}
"""Where walks go beside real servers."""
