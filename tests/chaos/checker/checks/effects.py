"""Every turn's effects stand once in Postgres: replies, tool outputs, states, the count of what waits."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from tests.chaos.checker.escalations import Escalations, was_handled
from tests.chaos.checker.evidence import Evidence, Person
from tests.chaos.checker.records import Commit, Fail
from tests.chaos.checker.rows import MessageRow
from tests.chaos.checker.violation import Violation
from tests.chaos.traffic.speech import TOOL, answers_to, ask_of

PROMISE = "effects"
COUNTER = "n"
"""What the bot counts in the states: the messages it has handled."""


class Count(NamedTuple):
    """How many messages the bot has handled: not always exactly known."""

    least: int = 0
    most: int = 0

    def after(self, handled: bool | None) -> "Count":
        """Count one message more."""
        return Count(self.least + (handled is True), self.most + (handled is not False))


def check(evidence: Evidence) -> Iterator[Violation]:
    """Compare the rows with what the texts ask for."""
    for person in evidence.people.values():
        yield from _turns(evidence, person)
        yield from _commits_once(evidence, person)
        yield from _told_once(evidence, person)
        yield from _strangers(person)
        waiting = sum(message.state == "received" for message in person.messages)
        if person.row is not None and person.row.waiting != waiting:
            yield Violation(PROMISE, person.user_id, None, f"waiting is {person.row.waiting}, and {waiting} wait")


def _turns(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """Go through the messages in the order in which they were processed, counting with the bot."""
    escalations = Escalations(evidence, person)
    counts: defaultdict[str | None, Count] = defaultdict(Count)
    overall = Count()
    settled = [message for message in person.messages if message.processed_at is not None]
    for batch in sorted((person.batches.get(one.seq, []) for one in settled), key=_left_at):
        for message in batch[-1:]:
            handled = was_handled(message, person, escalations)
            before = counts[message.session_id]
            for problem in _problems(person, batch, before, handled=handled):
                at = evidence.at(message.left_at)
                yield Violation(PROMISE, person.user_id, at, f"message {message.seq} {message.text!r}: {problem}")
        for message in batch:
            counts[message.session_id] = counts[message.session_id].after(handled)
            overall = overall.after(handled)
    for session in person.sessions:
        yield from _state(person, f"session {session.id}", session.state, counts[session.id])
    if person.row is not None:
        yield from _state(person, "the user", person.row.state, overall)


def _left_at(batch: list[MessageRow]) -> datetime:
    return batch[-1].left_at if batch else datetime.min.replace(tzinfo=UTC)


def _problems(person: Person, batch: list[MessageRow], before: Count, *, handled: bool | None) -> Iterator[str]:
    message = batch[-1]
    if any(one.seq in person.replies or one.id in person.outputs for one in batch[:-1]):
        yield f"what it left lies beside another of its batch, {[one.seq for one in batch]}"
    replies = person.replies.get(message.seq, [])
    said = [reply.text for reply in replies]
    numbers = range(before.least + 1, before.most + 2)
    expected = [_answers(batch, nr) for nr in numbers] if handled is not False else [[]]
    if said not in expected:
        yield f"its replies are {said}, not {' or '.join(map(str, expected))}"
    if [reply.ordinal for reply in replies] != list(range(1, len(replies) + 1)):
        yield f"its replies are numbered {[reply.ordinal for reply in replies]}"
    if any(reply.session_id != message.session_id for reply in replies):
        yield "a reply lies in another session"
    outputs = person.outputs.get(message.id, [])
    if any(output.data is None for output in outputs):
        yield "a tool call is stored without its output"
        return
    saved = [output.data for output in outputs if output.name == TOOL]
    keys = {f"{batch[0].id}:{one.seq}" for one in batch}
    users = [one.seq for one in batch if handled and ask_of(one.text).word == "tool"]
    if [one["seq"] for one in saved] != users or len({one["key"] for one in saved} | keys) > len(keys):
        yield f"it left the tool outputs {saved}"
    if any(output.session_id != message.session_id for output in outputs):
        yield "a tool output lies in another session"


def _answers(batch: list[MessageRow], nr: int) -> list[str]:
    """Word the answers to a batch whose first message is the `nr`-th that is handled in its session."""
    return [answer for place, one in enumerate(batch) for answer in answers_to(one.text, nr + place)]


def _state(person: Person, whose: str, state: dict[str, object], count: Count) -> Iterator[Violation]:
    counted = state.get(COUNTER, 0)
    if not (isinstance(counted, int) and count.least <= counted <= count.most):
        known = str(count.least) if count.least == count.most else f"{count.least} to {count.most}"
        yield Violation(PROMISE, person.user_id, None, f"the state of {whose} counts {counted} handled, not {known}")


def _commits_once(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """Compare what Postgres answered with what it has."""
    committed = Counter(one.message_id for one in person.commits if one.outcome == "committed")
    buried = Counter(one.message_id for one in person.fails if one.outcome == "dead")
    redriven = Counter(command.message_id for command in person.commanded("redrive"))
    writes: list[Commit | Fail] = [*person.commits, *person.fails]
    for settled in writes:
        message = person.by_id.get(settled.message_id)
        problem = None
        if message is None:
            problem = "is unknown to the database"
        elif settled.outcome == "committed" and committed[message.id] > 1:
            problem = f"was committed {committed[message.id]} times"
        elif settled.outcome == "committed" and message.state != "processed":
            problem = f"was committed, and is {message.state}"
        elif settled.outcome == "committed" and message.session_id != settled.session_id:
            problem = f"was committed into session {settled.session_id}, and lies in {message.session_id}"
        elif settled.outcome == "dead" and buried[message.id] > 1 + redriven[message.id]:
            problem = f"died {buried[message.id]} times"
        elif settled.outcome == "dead" and message.state != "dead" and not redriven[message.id]:
            problem = f"died, and is {message.state} although nobody redrove it"
        if problem is not None:
            number = f"message {message.seq}" if message is not None else f"message {settled.message_id}"
            yield Violation(PROMISE, person.user_id, settled.at, f"{number} {problem}")


def _told_once(evidence: Evidence, person: Person) -> Iterator[Violation]:
    """See that who writes while they are answered is told so once, until what came then is settled."""
    spells, done_at = 0, datetime.min.replace(tzinfo=UTC)
    for message in person.late if Escalations(evidence, person).rejects else ():
        spells += done_at <= message.accepted_at
        done_at = max(done_at, message.left_at)
    if len(person.busy) != spells:
        sentence = f"they were told {len(person.busy)} times that they are answered, in {spells} spells"
        yield Violation(PROMISE, person.user_id, None, sentence)


def _strangers(person: Person) -> Iterator[Violation]:
    for seq in person.replies.keys() - {message.seq for message in person.messages}:
        yield Violation(PROMISE, person.user_id, None, f"there are replies to message {seq}, which does not exist")
    for message_id in person.outputs.keys() - person.by_id.keys():
        yield Violation(PROMISE, person.user_id, None, f"message {message_id} is no message and has tool outputs")
