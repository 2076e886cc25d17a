"""One person stays one user, whatever they are called, and no two are ever one: simulated people of WhatsApp.

Each has a phone number at first; then a message or an event links a scoped id to it; then messages name either or both;
ids and numbers change, announced by an event, and somebody else gets the old number. All of it is delivered by two webs
at once, in any order after what links it, and again.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from random import Random
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onelane.bootstrap import Services, open_services
from onelane.config import Settings
from onelane.deliveries import Accepted, Delivery, IdentityChange
from onelane.inbox.intake import Intake
from onelane.postgres.db import Database
from tests.calls import Calls, lease, settlement
from tests.conftest import NIGHTLY, slow_after

Line = Delivery | IdentityChange

WEBHOOK_MAX = 8
ATTEMPTS_MAX = 200
LIST_MAX = 64
REDELIVERED = 0.1
NUMBERS = count(1)
"""Over all examples, which share the tables: nobody is called as in another one."""
LINES = """
SELECT user_id, array_agg(seq ORDER BY seq) AS seqs
  FROM (SELECT user_id, seq FROM inbox UNION ALL
        SELECT user_id, seq FROM messages WHERE direction = 'in') AS line
 WHERE user_id = ANY(%s) GROUP BY user_id
"""
SESSIONS = """
SELECT user_id, count(*) AS sessions, count(*) FILTER (WHERE status <> 'ended') AS open
  FROM conversation_sessions WHERE user_id = ANY(%s) GROUP BY user_id
"""
CONFLICTS = "SELECT count(*) AS conflicts FROM identity_conflicts WHERE user_id = ANY(%s)"


@dataclass(frozen=True)
class History:
    """What is drawn of a person: how many messages, what links their names, what changes."""

    before: int
    links_by_event: bool
    prefers_scoped: bool
    changes: tuple[str, ...]
    messages: int


HISTORIES = st.builds(
    History,
    before=st.integers(0, 2),
    links_by_event=st.booleans(),
    prefers_scoped=st.booleans(),
    changes=st.lists(st.sampled_from(["id", "number"]), max_size=3).map(tuple),
    messages=st.integers(1, 3),
)


@dataclass
class World:
    """Whose each line is, and in which round it is delivered: within one, in any order."""

    dice: Random
    rounds: defaultdict[int, list[Line]] = field(default_factory=lambda: defaultdict(list))
    person_of: dict[str, int] = field(default_factory=dict)

    def add(self, nr: int, number: int, line: Line) -> None:
        self.rounds[nr].append(line)
        self.person_of[line.external_id] = number

    def posts(self) -> Iterator[tuple[list[Line], list[Line]]]:
        """Give each round's lines to two webs, some to both, with some that came before."""
        earlier: list[Line] = []
        for nr in sorted(self.rounds):
            lines = self.rounds[nr]
            again = [line for line in earlier if self.dice.random() < REDELIVERED]
            of_web = [self.dice.choice([(0,), (1,), (0, 1)]) for _ in lines + again]
            webs = [[line for line, on in zip(lines + again, of_web, strict=True) if web in on] for web in (0, 1)]
            for posted in webs:
                self.dice.shuffle(posted)
            yield webs[0], webs[1]
            earlier += lines


class Person:
    """Somebody who writes, under the names that they have."""

    def __init__(self, world: World, phone: str) -> None:
        self._world = world
        self._number = next(NUMBERS)
        self._lines = count(1)
        self._ids = count(1)
        self._phone = phone or f"+1555{self._number}"
        self._scoped = [self._new_id()]

    def live(self, history: History, start: int = 0) -> None:
        """Write a whole history into the world, beginning with a round."""
        for _ in range(history.before):
            self._write(start, self._phone)
        self._link(start + 1, history)
        nr = start + 2
        for change in (*history.changes, None):
            for _ in range(history.messages):
                self._write(nr, *self._some_names())
            if change is not None:
                self._change(nr + 1, change)
                nr += 2

    def _link(self, nr: int, history: History) -> None:
        names = (self._scoped[0], self._phone) if history.prefers_scoped else (self._phone, self._scoped[0])
        if history.links_by_event:
            self._announce(nr, (self._phone,), adds=(self._scoped[0],))
        for _ in range(history.messages):
            self._write(nr, *names)

    def _change(self, nr: int, change: str) -> None:
        """Announce a new name; what names them by those that stay is delivered at the same time."""
        self._write(nr, self._scoped[-1])
        if change == "id":
            before = (*self._scoped[-1:], self._phone)
            self._scoped.append(self._new_id())
            self._announce(nr, before, adds=self._scoped[-1:])
            return
        old, self._phone = self._phone, f"+1555{next(NUMBERS)}"
        self._announce(nr, (old, self._scoped[-1]), adds=(self._phone,), drops=(old,))
        # Written before the number changed, and late on its way.
        self._write(nr + 1, self._scoped[-1], old)
        heir = Person(self._world, old)
        heir.live(History(before=1, links_by_event=False, prefers_scoped=True, changes=(), messages=1), nr + 1)

    def _some_names(self) -> Sequence[str]:
        """Choose how a message names them: by a number, an id of any age, or both."""
        scoped = self._world.dice.choice(self._scoped)
        return self._world.dice.choice([(self._phone,), (scoped,), (scoped, self._phone), (self._phone, scoped)])

    def _new_id(self) -> str:
        return f"US.{self._number}.{next(self._ids)}"

    def _write(self, nr: int, *names: str) -> None:
        self._world.add(nr, self._number, Delivery(senders=names, external_id=self._name(), text="hello"))

    def _announce(self, nr: int, names: Sequence[str], adds: Sequence[str], drops: Sequence[str] = ()) -> None:
        change = IdentityChange(senders=tuple(names), external_id=self._name(), adds=tuple(adds), drops=tuple(drops))
        self._world.add(nr, self._number, change)

    def _name(self) -> str:
        return f"{self._number}-{next(self._lines)}"


def post(intake: Intake, lines: Sequence[Line], start: threading.Barrier) -> dict[str, Accepted]:
    """Deliver lines in webhooks, and again what was refused, as a provider does."""
    start.wait(30)
    accepted: dict[str, Accepted] = {}
    left = list(lines)
    for _ in range(ATTEMPTS_MAX):
        outcomes = [
            outcome
            for first in range(0, len(left), WEBHOOK_MAX)
            for outcome in intake.outcomes("demo", left[first : first + WEBHOOK_MAX], lambda _: None)
        ]
        stands = {line.external_id: one for line, one in zip(left, outcomes, strict=True) if isinstance(one, Accepted)}
        accepted |= stands
        left = [line for line in left if line.external_id not in stands]
        if not left:
            return accepted
    raise AssertionError(f"refused for ever: {outcomes}")


def work_off(database: Database, users: Sequence[UUID]) -> None:
    """Run the turns of all users, as workers do."""
    calls, left = Calls(database), list(users)
    while left:
        begun = [one for one in calls.begin(*map(lease, left[:LIST_MAX])) if one["outcome"] == "turn"]
        settled = calls.settle(*map(settlement, begun)) if begun else []
        assert {one["outcome"] for one in settled} <= {"committed"}
        left = [*(UUID(one["user_id"]) for one in begun), *left[LIST_MAX:]]


def play(webs: Sequence[Services], histories: Sequence[History], seed: int) -> None:
    """Deliver everybody's history, and judge each round: one person one user, one user one person."""
    world = World(Random(seed))
    for history in histories:
        Person(world, "").live(history)
    user_of: dict[int, UUID] = {}
    with ThreadPoolExecutor(len(webs)) as pool:
        for posts in world.posts():
            start = threading.Barrier(len(webs))
            answered = list(pool.map(post, [web.intake for web in webs], posts, [start] * len(webs)))
            for external_id, accepted in (one for answers in answered for one in answers.items()):
                person = world.person_of[external_id]
                assert user_of.setdefault(person, accepted.user_id) == accepted.user_id, "one person, two users"
            assert len(set(user_of.values())) == len(user_of), "two people, one user"
            work_off(webs[0].database, list(user_of.values()))
    judge(webs[0].database, world, user_of)


def judge(database: Database, world: World, user_of: dict[int, UUID]) -> None:
    """Read from the rows that everybody has one open session, all that they wrote, and numbers without a gap."""
    lines: defaultdict[int, int] = defaultdict(int)
    for person in world.person_of.values():
        lines[person] += 1
    users = list(user_of.values())
    seqs = {row.user_id: row.seqs for row in database.rows(LINES, (users,))}
    assert seqs == {user_of[person]: list(range(1, number + 1)) for person, number in lines.items()}
    sessions = {row.user_id: (row.sessions, row.open) for row in database.rows(SESSIONS, (users,))}
    assert sessions == dict.fromkeys(users, (1, 1))
    assert [row.conflicts for row in database.rows(CONFLICTS, (users,))] == [0]


@pytest.fixture
def webs(settings: Settings, services: Services) -> Iterator[tuple[Services, Services]]:
    """Make two webs, each with connections of its own."""
    other = open_services(settings, redis_timeout_s=3)
    yield services, other
    other.close()


LIVES = hypothesis_settings(
    deadline=None, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck)
)
PEOPLE = 20
"""In each world, besides those who get their old numbers."""
WORLDS = [*slow_after(1, [5, 50, 50]), *[pytest.param(50, marks=NIGHTLY)] * 8]
"""100 people in the fast run, 2,000 more in the slow one, 8,000 in the nightly, in parts that processes share."""


@pytest.mark.parametrize("worlds", WORLDS)
def test_a_person_is_one_user_whatever_they_are_called_and_no_two_are_one(
    webs: tuple[Services, Services], worlds: int
) -> None:
    # A race is not lost twice in the same way: what fails is shown as it is, and not made smaller.
    @hypothesis_settings(LIVES, max_examples=worlds)
    @given(st.lists(HISTORIES, min_size=PEOPLE, max_size=PEOPLE), st.integers(0, 2**32))
    def lives(histories: list[History], seed: int) -> None:
        play(webs, histories, seed)

    lives()
