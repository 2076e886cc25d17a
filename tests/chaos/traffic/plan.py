"""The traffic of a run: who writes what and when, and what the operator does about it. A seed gives the same plan.

Roles keep the sessions a pure function of what was accepted: whose messages may go unhandled for a while (escalated
users) says no `bye`, and nobody's session ends by two wills at once.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heappop, heappush, merge
from random import Random
from typing import NamedTuple

from tests.chaos.traffic.speech import (
    END_WORD,
    NOTHING,
    PHONE_PREFIX,
    SCOPED_PREFIX,
    SENDER_PREFIX,
    SLACK_PREFIX,
    Ask,
    text_of,
)

PAIR_S = 0.116
"""How soon a user's second message follows who says one thing in two."""
BURST = range(2, 13)
BURST_SPREAD_S = 0.06
ALBUM = 4
OVERTAKES = 0.2
"""How often a message of a burst is posted before the one that was written before it."""
AGAIN_AT_ONCE = 0.04
AGAIN_LATER = 0.04
AGAIN_WITHIN_S = (0.5, 20.0)
THOUGHT_S = (0.0, 0.6)
"""How long a bot that reads its history has thought before: meanwhile Postgres may go away."""
MEAN_SIZES = {"single": 1.0, "pair": 2.0, "burst": sum(BURST) / len(BURST), "album": float(ALBUM)}

ECHO = "echo"
"""A colleague's, not the operator's: he writes to the person from the provider's own app, and so takes over."""
FORGET = "forget"
"""The last command about somebody. What was delivered just before it is delivered again after it, and nothing new."""
LEAVES_S = (8.0, 320.0)
"""When somebody is forgotten: as often in the first minute as in the next five."""
AFTER_ALL = " after all"
AGAIN_AFTER_S = 1.0
AGAIN_AFTER_ALL = 3
RENAME = "rename"
"""Not the operator's, but the provider's: from now on the person has another scoped id."""
NAMED_TWICE = 3
"""One message in so many names its writer by phone number and scoped id, the others by the scoped id alone."""
META, SLACK, TELEGRAM = "meta", "slack", "telegram"
TEAM = "T0CHAOS"

LIVELY = {"single": 55, "pair": 15, "burst": 20, "album": 10}
SPARSE = {"single": 85, "pair": 15}
EVERYDAY = {"echo": 74, "state": 8, "tool": 6, "ask": 6, "say": 6, "sleep": 4, "raise-until": 2}
HASTY = {"ask": 14, "newer": 8, "sleep": 8, "raise": 2}
"""What they say who write faster than they are answered."""


@dataclass(frozen=True)
class Role:
    """What some users have in common."""

    name: str
    users: int
    share: float
    """Their part of all messages."""
    channels: tuple[str, ...] = ("demo",)
    words: Mapping[str, float] = field(default_factory=dict)
    """How often they say something besides EVERYDAY, in its weights."""
    commands: tuple[tuple[str, float], ...] = ()
    """What the operator does with them, in turn, and after how many seconds."""
    occasions: Mapping[str, float] = field(default_factory=lambda: LIVELY)
    nap_s: tuple[float, float] = (0.02, 0.2)


ROLES = (
    Role("hot", 10, 0.26, ("demo", "demo", "demo", "demo", "support"), {"newer": 4}),
    Role("gathered", 12, 0.08, ("gathered",), HASTY, (("redrive", 15),)),
    Role("interrupting", 12, 0.08, ("interrupted",), {**HASTY, "shield": 6}, (("redrive", 15),)),
    Role("rejected", 8, 0.04, ("rejecting",), {"sleep": 20}, nap_s=(0.1, 0.5)),
    Role("on the phone", 8, 0.02, (TELEGRAM,)),
    Role("plain", 145, 0.05, ("demo", "demo", "support"), {"fork": 8}),
    Role("slow", 20, 0.05, ("demo", "support"), {"sleep": 40, "doze": 40}, nap_s=(0.2, 0.9)),
    Role("ender", 15, 0.06, words={"bye": 10, END_WORD: 6}, commands=(("end", 9),)),
    Role("escalated", 10, 0.05, words={"escalate": 5}, commands=(("escalate", 8), ("hand_back", 4), ("hand_back", 6))),
    Role("paused", 8, 0.04, commands=(("pause", 6), ("resume", 3))),
    Role("poison", 10, 0.03, words={"raise": 18, "raise-until": 10, "hang": 3}, commands=(("redrive", 15),)),
    Role("crashy", 2, 0.01, words={"crash": 6}),
    Role("at work", 10, 0.03, (SLACK,)),
    Role("renamed", 20, 0.05, (META,), commands=((RENAME, 6),)),
    Role("taken over", 8, 0.03, (META,), commands=((ECHO, 8), ("hand_back", 5))),
    Role("leaving", 24, 0.03, ("demo", "support", META), commands=((FORGET, 0),)),
    Role("brief", 12, 0.06, ("brief",), occasions=SPARSE),
    Role("aged", 6, 0.03, ("aged",), occasions=SPARSE),
)


class Post(NamedTuple):
    """A message to deliver; a redelivery is another post of the same message."""

    at: float
    """Seconds after the run's start."""
    delivery: str
    external_id: str
    ask: Ask
    web: int
    """Over which of the webs: taken modulo their number."""
    written_at: float
    """When the user wrote it: all of an album at once."""
    renamed: int = 0
    """How often its writer had been renamed."""

    @property
    def text(self) -> str:
        """What it says."""
        return text_of(self.ask)


class Command(NamedTuple):
    """Something that the operator does, when all earlier posts of the user are acknowledged and before any later."""

    at: float
    name: str
    nr: int = 0
    """Of a renaming or an echo: which it is."""


Step = Post | Command


@dataclass(frozen=True)
class User:
    """One person on one channel, and everything they will ever do."""

    seed: int
    nr: int
    role: Role
    per_second: float
    """How many messages on average."""

    @cached_property
    def channel(self) -> str:
        """The channel they write on."""
        return self.role.channels[self.nr % len(self.role.channels)]

    @cached_property
    def sender(self) -> str:
        """What the provider calls them first, of a form that a leak shows. It means them for ever."""
        if self.channel == META:
            return f"{PHONE_PREFIX}{self.nr:03d}"
        if self.channel == TELEGRAM:
            return f"{PHONE_PREFIX}{self.nr:03d}"
        if self.channel == SLACK:
            return f"{TEAM}:U{self.slack_id}"
        return f"{SENDER_PREFIX}{self.nr:08d}"

    @property
    def mark(self) -> str:
        """What the names of all their deliveries begin with, and so the last word of all that they write."""
        return f"u{self.nr:03d}."

    @property
    def slack_id(self) -> str:
        """What the ids of a person and of their direct channel end with."""
        return f"{SLACK_PREFIX}{self.nr:03d}"

    def external_id(self, name: str, nr: int) -> str:
        """Tell the provider's id of a message: Slack's have team, channel and time, Telegram's the chat."""
        if self.channel == TELEGRAM:
            return f"{self.sender}:{nr}"
        return f"{TEAM}:D{self.slack_id}:{1_000_000_000 + nr}.{self.nr:06d}" if self.channel == SLACK else name

    def scoped(self, renamed: int) -> tuple[str, ...]:
        """Tell the scoped id that they have after so many renamings; at first they have none."""
        return (f"{SCOPED_PREFIX}n{self.nr}n{renamed}",) if renamed else ()

    def names(self, post: Post) -> tuple[str, ...]:
        """Tell by what names the provider calls the writer of a message."""
        if self.channel == SLACK:
            return self.sender, f"D{self.slack_id}"
        scoped = self.scoped(post.renamed)
        if not scoped:
            return (self.sender,)
        is_named_twice = int(post.external_id.rpartition(".")[2]) % NAMED_TWICE == 0
        return (self.sender, *scoped) if is_named_twice else scoped

    def steps(self) -> Iterator[Step]:
        """Go through their steps in the order of time, without an end unless they are forgotten."""
        renamed = 0
        latest = deque[Post](maxlen=AGAIN_AFTER_ALL)
        for step in merge(_Script(self, "says").posts(), _Script(self, "operator").commands(), key=_at):
            if isinstance(step, Post):
                latest.append(step)
                yield step._replace(renamed=renamed)
            elif step.name == RENAME:
                renamed += 1
                yield step._replace(nr=renamed)
            elif step.name == FORGET:
                yield step
                for post in latest:
                    yield post._replace(at=step.at + AGAIN_AFTER_S, delivery=f"{post.delivery}{AFTER_ALL}")
                return
            else:
                yield step


def users(seed: int, per_second: float) -> list[User]:
    """Make everybody; together they write `per_second` messages on average."""
    roles = [role for role in ROLES for _ in range(role.users)]
    return [User(seed, nr, role, per_second * role.share / role.users) for nr, role in enumerate(roles)]


def _at(step: Step) -> float:
    return step.at


class _Script:
    """A source of one user's steps, with dice of its own."""

    def __init__(self, user: User, source: str) -> None:
        self._user = user
        self._source = source
        self._dice = Random(f"{user.seed} {user.nr} {source}")
        self._written = 0
        words: dict[str, float] = {**EVERYDAY}
        for word, weight in user.role.words.items():
            words[word] = words.get(word, 0) + weight
        self._words = words

    def posts(self) -> Iterator[Post]:
        """Write on occasions, at random times."""
        occasions = self._user.role.occasions
        size = sum(MEAN_SIZES[name] * weight for name, weight in occasions.items()) / sum(occasions.values())
        at, later = 0.0, list[Post]()
        while True:
            at += self._dice.expovariate(self._user.per_second / size)
            while later and later[0].at <= at:
                yield heappop(later)
            for post in self._occasion(at, self._one_of(occasions)):
                heappush(later, post)

    def commands(self) -> Iterator[Step]:
        """Do the role's commands in turn; before a redrive see to it that something waits."""
        at, echoes = 0.0, 0
        while self._user.role.commands:
            for name, after_s in self._user.role.commands:
                at += after_s * self._dice.uniform(0.6, 1.4)
                if name == FORGET:
                    soonest, latest = LEAVES_S
                    at = soonest * (latest / soonest) ** self._dice.random()
                echoes += name == ECHO
                if name == "redrive":
                    yield self._post(at - 0.2, Ask("sleep", "0.6"))
                    yield from [self._post(at - 0.1, Ask("echo")) for _ in range(2)]
                yield Command(at, name, echoes if name == ECHO else 0)

    def _occasion(self, at: float, name: str) -> Iterator[Post]:
        match name:
            case "single":
                times = [at]
            case "pair":
                times = [at, at + PAIR_S]
            case "album":
                times = [at] * ALBUM
            case _:
                times = [at + nr * self._dice.uniform(0, BURST_SPREAD_S) for nr in range(self._dice.choice(BURST))]
        for nr in range(1, len(times)):
            if self._dice.random() < OVERTAKES:
                times[nr - 1], times[nr] = times[nr], times[nr - 1]
        for time in times:
            yield from self._deliveries(self._post(time, self._ask())._replace(written_at=at))

    def _deliveries(self, post: Post) -> Iterator[Post]:
        """Deliver once, or again: at once over the other web, or later."""
        yield post
        chance = self._dice.random()
        if chance < AGAIN_AT_ONCE:
            yield post._replace(delivery=f"{post.delivery} at once", web=post.web + 1)
        elif chance < AGAIN_AT_ONCE + AGAIN_LATER:
            later = post.at + self._dice.uniform(*AGAIN_WITHIN_S)
            yield post._replace(at=later, delivery=f"{post.delivery} later", web=self._dice.randrange(2))

    def _post(self, at: float, ask: Ask) -> Post:
        self._written += 1
        name = f"{self._user.mark}{self._source}.{self._written}"
        external_id = self._user.external_id(name, self._written)
        return Post(max(0.0, at), name, external_id, ask._replace(tag=name), self._dice.randrange(2), at)

    def _ask(self) -> Ask:
        word = self._one_of(self._words)
        match word:
            case "sleep" | "doze":
                argument = f"{self._dice.uniform(*self._user.role.nap_s):.2f}"
            case "tool" | "ask" | "shield":
                argument = f"{self._dice.uniform(*THOUGHT_S):.2f}"
            case "say":
                argument = str(self._dice.randrange(5))
            case "raise-until":
                argument = str(self._dice.choice((1, 1, 2)))
            case "crash":
                argument = str(self._dice.choice((1, 1, 1, 2, 3)))
            case _:
                argument = NOTHING
        return Ask(word, argument)

    def _one_of(self, weights: Mapping[str, float]) -> str:
        return self._dice.choices(list(weights), list(weights.values()))[0]
