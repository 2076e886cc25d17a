"""Batches in SQL against their plain model: whatever comes between, each message is answered once, with those it joins.

A story is a list of steps of one user. Two workers may believe that the same batch is theirs: turns stay at hand after
they were overtaken, and act once more. At the end everything is worked off.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

from onelane.dev.embedded import EmbeddedPostgres
from onelane.postgres.migrations import shipped_code
from tests.batch_model import ATTEMPTS_MAX, Batches, Channel, Running
from tests.calls import Calls, Item, delivery, lease
from tests.conftest import examples_of
from tests.rows import OneConnection

BEGINS = datetime(2026, 3, 1, 10, tzinfo=UTC)
ROUNDS_MAX = 500
"""Far more turns than the messages of a story need."""
SECOND = timedelta(seconds=1)
CHANNELS = {
    "queue": Channel(),
    "collect": Channel(batch_max=5),
    "interrupt": Channel(batch_max=5, interrupt_max=3),
}
ORDERS = {
    "end": "request_session_end(%s, p_now => %s)",
    "escalate": "escalate_session(%s, p_now => %s)",
    "hand back": "hand_back_session(%s)",
}
FACTS = "SELECT seq, end_at IS NOT NULL AS ends, escalate_at IS NOT NULL AS escalates FROM inbox WHERE user_id = %s"
LINES = """
SELECT direction, turn_seq, state, text FROM messages WHERE user_id = %s AND kind = 'message'
 ORDER BY turn_seq, ordinal
"""


class Say(NamedTuple):
    """Write so many messages, each so long after the one before."""

    messages: int
    gap_s: float
    closes: bool
    is_poison: bool
    """Whether every turn fails that the first of them is in."""


class Begin(NamedTuple):
    """Begin a turn under the newest lease, one before it, or a new one."""

    lease: str


class Settle(NamedTuple):
    which: int
    is_shielded: bool
    goes_on: bool


class Claim(NamedTuple):
    which: int


class KeepStep(NamedTuple):
    which: int
    key: str


class Order(NamedTuple):
    """Let the operator do something."""

    name: str


class Redrive(NamedTuple):
    which: int


class Story(NamedTuple):
    mode: str
    steps: list[Any]


class Player:
    """Plays a story to Postgres and to the model; each answer must be the model's."""

    def __init__(self, connection: psycopg.Connection[Any], story: Story) -> None:
        self.channel = CHANNELS[story.mode]
        self.model = Batches(self.channel)
        self.database = OneConnection(connection)
        self.calls = Calls(self.database)
        self.name = f"batches-{uuid4()}"
        self.now = BEGINS
        self.ids: list[str] = []
        self.user_id: UUID | None = None
        self.newest = 1
        """The fence of the newest lease."""
        self.turns: list[tuple[Running, Item]] = []
        self.poison: set[int] = set()
        self.cured: set[int] = set()
        self.said: list[str] = []
        """The replies of turns that were committed."""
        self.in_a_row: dict[int, int] = {}
        policy = {"channel": self.name, "idle_timeout_s": self.channel.idle // SECOND}
        policy |= {"max_age_s": self.channel.max_age // SECOND, "escalation_timeout_s": 10**8}
        self.ask("publish_policy(%s)", Jsonb({**policy, "batch_max": self.channel.batch_max}))

    def play(self, steps: list[Any]) -> None:
        for step in steps:
            if self.user_id or isinstance(step, Say):
                getattr(self, type(step).__name__.lower())(step)
        for _ in range(ROUNDS_MAX):
            if not self.model.waiting:
                break
            self.begin(Begin("new"))
            self.settle(Settle(-1, is_shielded=False, goes_on=False))
        self.judge()

    # what a step does

    def say(self, step: Say) -> None:
        for nr in range(step.messages):
            self.now += timedelta(seconds=step.gap_s)
            item = delivery("alice", f"m{len(self.ids)}", now=self.now.isoformat(), channel=self.name)
            [accepted] = self.calls.accept({**item, **({"closes": True} if step.closes else {})})
            self.user_id = UUID(accepted["user_id"])
            self.ids.append(accepted["message_id"])
            self.model.accept(len(self.ids), self.now, closes=step.closes)
            if step.is_poison and not nr:
                self.poison.add(len(self.ids))

    def begin(self, step: Begin) -> None:
        self.newest += step.lease in {"new", "taken over"}
        fence = self.newest - (step.lease == "old")
        taken_over = step.lease == "taken over"
        assert self.user_id
        self.read_facts()
        [begun] = self.calls.begin(lease(self.user_id, fence, taken_over=taken_over))
        self.has_begun(begun, fence, taken_over=taken_over)

    def settle(self, step: Settle) -> None:
        if not self.turns:
            return
        turn, begun = self.turns[step.which % len(self.turns)]
        self.read_facts()
        fails = begun["session"]["status"] != "escalated" and not self.poison.isdisjoint(turn.seqs)
        item = self.item(turn, begun, goes_on=step.goes_on)
        text = f"to {turn.seqs} under {turn.fence}, {uuid4()}"
        if fails:
            item["failure"] = {
                "error": "E", "attempts": turn.attempts, "attempts_max": ATTEMPTS_MAX, "poison": "skip"
            }  # fmt: skip
        else:
            item["effects"] = {"replies": [{"text": text}]}
            if self.channel.interrupt_max and not step.is_shielded:
                item["interrupt"] = {"superseded": turn.superseded, "most": self.channel.interrupt_max}
        expected = self.model.settle(turn, fails=fails, is_shielded=step.is_shielded)
        [settled] = self.calls.settle(item)
        assert settled["outcome"] == expected
        if expected == "committed":
            self.said.append(text)
        if settled["next"]:
            self.has_begun(settled["next"], turn.fence)

    def claim(self, step: Claim) -> None:
        if self.turns:
            turn, begun = self.turns[step.which % len(self.turns)]
            self.read_facts()
            item = self.item(turn, begun)
            outcome, claimed = self.model.claim(turn)
            answer = self.ask("claim_newer(%s)", Jsonb(item))
            assert (answer["outcome"], _seqs(answer)) == (outcome, claimed)

    def keepstep(self, step: KeepStep) -> None:
        if self.turns:
            turn, begun = self.turns[step.which % len(self.turns)]
            item = self.item(turn, begun)
            value = f"of {turn.seqs[0]} to {turn.frozen_to}, {uuid4()}"
            seqs = [turn.seqs[0], turn.frozen_to]
            answer = self.ask("keep_step(%s)", Jsonb({**item, "seqs": seqs, "key": step.key, "value": value}))
            assert (answer["outcome"], answer.get("value")) == self.model.step(turn, step.key, value)

    def order(self, step: Order) -> None:
        self.ask(ORDERS[step.name], *[self.user_id, self.now][: ORDERS[step.name].count("%s")])

    def redrive(self, step: Redrive) -> None:
        if self.model.dead:
            seq = self.model.dead.pop(step.which % len(self.model.dead))
            self.poison.discard(seq)
            self.cured.add(seq)
            assert self.ask("redrive_message(%s, NULL, %s)", self.ids[seq - 1], self.now) == self.user_id
            self.model.accept(seq, self.now, is_redriven=True)

    # how

    def has_begun(self, begun: Item, fence: int, *, taken_over: bool = False) -> None:
        """Compare what was handed out with what the model hands out."""
        expected = self.model.begin(fence, taken_over=taken_over, started_at=lambda: _started_at(begun))
        if isinstance(expected, str):
            assert begun["outcome"] == expected
            return
        assert begun["outcome"] == "turn"
        read = begun["turn"]
        assert (_seqs(read), read["version"], read["superseded"]) == (
            *(expected.seqs, expected.version, expected.superseded),
        )
        assert expected.superseded <= (self.channel.interrupt_max or 0)
        self.turns.append((expected, read))

    def item(self, turn: Running, begun: Item, *, goes_on: bool = False) -> Item:
        whose = {"user_id": str(self.user_id), "fence": turn.fence, "version": turn.version}
        return {**whose, "seqs": turn.seqs, "session_id": begun["session"]["id"], "goes_on": goes_on}

    def read_facts(self) -> None:
        """Learn what the operator's acts have left on messages that wait."""
        for row in self.database.rows(FACTS, (self.user_id,)):
            self.model.waiting[row.seq].ends = row.ends
            self.model.waiting[row.seq].escalates = row.escalates

    def judge(self) -> None:
        """See that nobody is left out, answered twice, out of order or convicted for another."""
        lines = self.database.rows(LINES, (self.user_id,))
        answered = [seq for batch in self.model.committed for seq in batch]
        assert sorted([*answered, *self.model.dead]) == list(range(1, len(self.ids) + 1))
        in_order = [seq for seq in answered if seq not in self.cured]
        assert in_order == sorted(in_order)
        assert set(self.model.dead) <= self.poison
        assert all(one + 1 == other for batch in self.model.committed for one, other in pairwise(batch))
        states = {line.turn_seq: line.state for line in lines if line.direction == "in"}
        assert states == {seq: "dead" if seq in self.model.dead else "processed" for seq in states}
        assert len(states) == len(self.ids)
        assert sorted(line.text for line in lines if line.direction == "out") == sorted(self.said)
        assert not self.database.rows("SELECT FROM steps WHERE user_id = %s", (self.user_id,))

    def ask(self, call: str, *params: Any) -> Any:
        [row] = self.database.rows(f"SELECT {call} AS answer", params)
        return row.answer


def _seqs(read: Item) -> list[int]:
    return [message["seq"] for message in read["messages"]]


def _started_at(begun: Item) -> datetime:
    return datetime.fromisoformat(begun["turn"]["session"]["started_at"])


# stories

WHICH = st.sampled_from([-1, -1, -1, -2, 0])
SAYS = st.builds(
    Say, st.integers(1, 4), st.sampled_from([0.3, 0.3, 1, 3_600, 4_000]), st.just(value=False), st.just(value=False)
)
ODD = st.builds(Say, st.just(1), st.just(0.3), st.booleans(), st.booleans())
BEGINNINGS = st.builds(Begin, st.sampled_from(["same", "same", "new", "taken over", "old"]))
ENDINGS = st.builds(Settle, WHICH, st.sampled_from([False, False, False, True]), st.booleans())
OTHERS = st.one_of(
    st.builds(Claim, WHICH),
    st.builds(KeepStep, WHICH, st.sampled_from(["a", "b"])),
    st.builds(Order, st.sampled_from(["end", "escalate", "hand back"])),
    st.builds(Redrive, st.integers(0, 3)),
)
STEPS = st.one_of(SAYS, SAYS, ODD, BEGINNINGS, BEGINNINGS, ENDINGS, ENDINGS, OTHERS, OTHERS)
STORIES = st.builds(Story, st.sampled_from(sorted(CHANNELS)), st.lists(STEPS, min_size=6, max_size=25))


def plays(connection: psycopg.Connection[Any], story: Story) -> None:
    with connection.transaction(force_rollback=True):
        Player(connection, story).play(story.steps)


@pytest.fixture(scope="module")
def connection(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres.url, autocommit=True, row_factory=namedtuple_row, prepare_threshold=0) as connection:
        connection.execute("SET TimeZone TO 'UTC'")
        yield connection


@pytest.mark.parametrize("number", [40, pytest.param(None, marks=pytest.mark.slow)], ids=["few", "many"])
def test_each_message_is_answered_once_with_those_that_it_joins(
    connection: psycopg.Connection[Any], number: int | None
) -> None:
    @examples_of(number)
    @given(STORIES)
    def play(story: Story) -> None:
        plays(connection, story)

    play()


PLANTED = {
    "membership is not frozen": (
        "begin_turn",
        "UPDATE inbox SET batch_last = v_last",
        "UPDATE inbox SET batch_last = NULL",
    ),
    "a message joins behind an end": ("joins_batch", "p_before.end_at IS NULL AND NOT", "NOT"),
}


@pytest.mark.slow
@pytest.mark.parametrize("bug", PLANTED)
def test_the_model_sees_a_bug_in_batches(connection: psycopg.Connection[Any], bug: str) -> None:
    name, right, wrong = PLANTED[bug]
    shipped = shipped_code()[f"functions/{name}"]
    assert right in shipped

    def is_seen(story: Story) -> bool:
        try:
            plays(connection, story)
        except AssertionError:
            return True
        return False

    with connection.transaction(force_rollback=True):
        connection.execute(shipped.replace(right, wrong))
        try:
            looking = settings(
                max_examples=20_000, phases=[Phase.generate], derandomize=True, database=None, deadline=None
            )
            find(STORIES, is_seen, settings=looking)
        except NoSuchExample:
            pytest.fail("no story showed it")
