"""Sessions are a pure function of when messages were accepted and of explicit ends: those of the policy's model.

The model hears of a user's messages in their order, of ends and redriven messages where they took effect. An end by
command takes effect at an instant that only the database knows: it must lie within a command.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, time, timedelta
from itertools import accumulate, pairwise, zip_longest
from typing import Any, NamedTuple

from tests.chaos.checker.escalations import Escalations, was_handled
from tests.chaos.checker.evidence import CLOCKS_DIFFER_S, Evidence, Person
from tests.chaos.checker.records import Command
from tests.chaos.checker.rows import MessageRow, SessionRow
from tests.chaos.checker.violation import Violation
from tests.chaos.traffic.speech import END_WORD, deed_of
from tests.policy_model import EXPLICIT, Model, Policy

PROMISE = "sessions"


class Step(NamedTuple):
    """Something that takes effect on a user's sessions, and when, on the database's clock."""

    at: datetime
    place: int
    """How many messages come first, among what is of one moment."""
    act: Callable[[Model], object]
    """What the model is to be given."""


class Told(NamedTuple):
    """A session, as the model and the database tell it."""

    started_at: datetime
    last_message_at: datetime
    ended_at: datetime | None
    reason: str | None
    seqs: list[int]


def check(evidence: Evidence) -> Iterator[Violation]:
    """Judge the rows by themselves, then against the model."""
    for person in evidence.people.values():
        yield from _rows(evidence, person)
        if person.messages and all(message.processed_at is not None for message in person.messages):
            yield from _partition(evidence, person)


def policy_of(settings: Mapping[str, Any]) -> Policy:
    """Read a channel's policy as the run was set up with it."""
    seconds = {name: settings.get(f"{name}_s") for name in ("idle_timeout", "max_age", "escalation_timeout")}
    spans = {name: timedelta(seconds=value) for name, value in seconds.items() if value is not None}
    day_start = settings.get("day_start")
    return Policy(
        idle=spans.get("idle_timeout", Policy.idle),
        day_start=time.fromisoformat(day_start) if day_start else None,
        zone=settings.get("timezone"),
        max_age=spans.get("max_age"),
        escalation=spans.get("escalation_timeout", Policy.escalation),
    )


# the rows by themselves


def _rows(evidence: Evidence, person: Person) -> Iterator[Violation]:
    def broken(at: datetime, sentence: str) -> Violation:
        return Violation(PROMISE, person.user_id, evidence.at(at), sentence)

    still_open = [session for session in person.sessions if session.ended_at is None]
    if len(still_open) > 1:
        yield broken(still_open[1].started_at, f"sessions {[session.id for session in still_open]} are open at once")
    for before, after in pairwise(_lasting(person.sessions)):
        if before.ended_at is None or before.ended_at > after.started_at:
            yield broken(
                after.started_at, f"session {after.id} begins before session {before.id} ends, at {before.ended_at}"
            )
    used = {message.session_id for message in person.messages}
    for session in person.sessions:
        if session.id not in used:
            yield broken(session.started_at, f"session {session.id} has no message")
    own = {session.id for session in person.sessions}
    for message in person.messages:
        if message.session_id is not None and message.session_id not in own:
            yield broken(message.accepted_at, f"message {message.seq} lies in session {message.session_id}, not theirs")


def _lasting(sessions: list[SessionRow]) -> list[SessionRow]:
    """Leave out those that ended as they began: they have no moment in common with another."""
    return [session for session in sessions if session.ended_at != session.started_at]


# against the model


def _partition(evidence: Evidence, person: Person) -> Iterator[Violation]:
    ends = sorted(_ends(person))
    yield from _unasked(evidence, person, ends)
    model = _play(evidence, person, _steps(evidence, person, ends))
    stored = _stored(person)
    if stored and stored[-1].ended_at is not None:
        model.look(evidence.read_at)  # somebody has looked after the last message; nobody must have
    told = _told(model)
    for nr, (is_, should_be) in enumerate(zip_longest(stored, told), 1):
        if is_ != should_be:
            at = evidence.at((is_ or should_be).started_at)
            sentence = f"session {nr} is {_worded(is_)}; by the policy it is {_worded(should_be)}"
            yield Violation(PROMISE, person.user_id, at, sentence)
            return


def _ends(person: Person) -> set[datetime]:
    """Return the instants of ends by an operator, as the database has them: noted on a message, or of a session."""
    noted = {message.end_at for message in person.messages if message.end_at is not None}
    done = {session.ended_at for session in person.sessions if session.ended_reason == "operator"}
    return noted | {at for at in done if at is not None}


def _unasked(evidence: Evidence, person: Person, ends: list[datetime]) -> Iterator[Violation]:
    commands = person.commanded("end")
    for at in ends:
        if not any(_covers(command, evidence.at(at)) for command in commands):
            yield Violation(
                PROMISE, person.user_id, evidence.at(at), f"an operator's end took effect at {at}, and nobody asked"
            )


def _covers(command: Command, at: float) -> bool:
    """Tell whether a command may have taken effect at a moment; one that was given up, at any later one."""
    until = command.ended_at + CLOCKS_DIFFER_S if command.is_done else at
    return command.at - CLOCKS_DIFFER_S <= at <= until


class _Past:
    """A user's messages by when they were accepted and when they had left the order for the first time."""

    def __init__(self, messages: list[MessageRow]) -> None:
        self._accepted = [message.accepted_at for message in messages]
        self.settled = list(accumulate(map(_settled_at, messages), max))

    def place_of(self, at: datetime) -> int:
        """Count the messages accepted by `at`."""
        return bisect_right(self._accepted, at)

    def has_effect_at(self, at: datetime) -> datetime:
        """Tell when an end at `at` takes effect: once all messages accepted before it have left."""
        place = self.place_of(at)
        return max(at, self.settled[place - 1]) if place else at


def _settled_at(message: MessageRow) -> datetime:
    """Tell when a message left its order; when one died that was redriven since, only its neighbours tell."""
    return message.accepted_at if message.redriven_at is not None else message.left_at


def _steps(evidence: Evidence, person: Person, ends: list[datetime]) -> list[Step]:
    """Bring everything into the order in which it takes effect: what is of one moment, by the messages' numbers.

    A redriven message ends no session, so that its first turn is all that counts.
    """
    past, escalations = _Past(person.messages), Escalations(evidence, person)
    steps: list[Step] = []
    for place, message in enumerate(person.messages, 1):
        does = _does(person, message, escalations) if message.redriven_at is None else None
        steps.append(Step(past.settled[place - 1], place, _turn(message, does)))
    ends_at = [*ends, *_ends_without_trace(evidence, person, ends)]
    steps += [Step(past.has_effect_at(at), past.place_of(at), _end(at)) for at in ends_at]
    return sorted(steps, key=lambda step: step[:2])


def _turn(message: MessageRow, does: str | None) -> Callable[[Model], object]:
    def step(model: Model) -> None:
        model.begin(message.seq, message.accepted_at)
        model.commit(message.seq, does)

    return step


def _end(at: datetime) -> Callable[[Model], object]:
    return lambda model: model.end(at)


def _ends_without_trace(evidence: Evidence, person: Person, ends: list[datetime]) -> Iterator[datetime]:
    """Return when commands were done that the database does not mention: then no session was to be open."""
    for command in person.commanded("end"):
        if command.is_done and not any(_covers(command, evidence.at(at)) for at in ends):
            yield evidence.instant(command.ended_at)


def _play(evidence: Evidence, person: Person, steps: list[Step]) -> Model:
    model = Model(policy_of(evidence.setup.channels.get(person.row.channel, {}) if person.row else {}))
    for step in steps:
        step.act(model)
    return model


def _does(person: Person, message: MessageRow, escalations: Escalations) -> str | None:
    """Tell how a message ended its session. An escalation changes nothing about which messages belong together."""
    is_end_word = message.text == END_WORD and message.state == "processed"
    if is_end_word and escalations.must_have_been(message):
        return None
    deed = deed_of(message.text) if is_end_word or was_handled(message, person, escalations) else None
    return deed if deed in EXPLICIT else None


def _stored(person: Person) -> list[Told]:
    seqs = defaultdict[str | None, list[int]](list)
    for message in person.messages:
        seqs[message.session_id].append(message.seq)
    return [
        Told(session.started_at, session.last_message_at, session.ended_at, session.ended_reason, seqs[session.id])
        for session in person.sessions
    ]


def _told(model: Model) -> list[Told]:
    return [
        Told(session.started_at, session.last_message_at, session.ended_at, session.reason, sorted(session.seqs))
        for session in model.sessions
    ]


def _worded(session: Told | None) -> str:
    if session is None:
        return "none"
    ended = f"ended at {session.ended_at} by {session.reason}" if session.ended_at else "open"
    seqs = f"{session.seqs[0]}…{session.seqs[-1]} ({len(session.seqs)})" if session.seqs else "none"
    return f"from {session.started_at} to {session.last_message_at}, {ended}, of the messages {seqs}"
