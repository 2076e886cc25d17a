"""When a user's session was in a human's hands, and which messages the bot handled: as far as that can be known.

An operator's command takes effect somewhere between its begin and its end, and a message is judged by its session's
status as its turn begins. So there are times at which a session may have been escalated, and times at which it was.
"""

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from math import inf
from typing import NamedTuple

from tests.chaos.checker.evidence import CLOCKS_DIFFER_S, Evidence, Person
from tests.chaos.checker.records import Command
from tests.chaos.checker.rows import MessageRow
from tests.chaos.checker.spans import Spans
from tests.chaos.traffic.speech import END_WORD, answers_to, deed_of

ESCALATION_TIMEOUT_S = 25_200


class Certain(NamedTuple):
    """Between `since` and `until` this session was escalated."""

    since: float
    until: float
    session_id: str


class Escalations:
    """One user's."""

    def __init__(self, evidence: Evidence, person: Person) -> None:
        self._evidence = evidence
        self._person = person
        self._given_back = person.commanded("hand_back")

    @property
    def rejects(self) -> bool:
        """Whether who writes while they are answered is only told so."""
        channel = self._person.row.channel if self._person.row else ""
        return self._evidence.setup.channels.get(channel, {}).get("on_busy") == "reject"

    @cached_property
    def possible(self) -> Spans:
        """Tell when the session in use may have been escalated."""
        commanded = [self._may_last(command) for command in self._person.commanded("escalate", "echo")]
        return Spans([*commanded, *((at - CLOCKS_DIFFER_S, self._back_surely(at)) for at, _ in self._by_bot)])

    def may_have_been(self, message: MessageRow) -> bool:
        """Tell whether a turn of this message may have found its session escalated, or been overtaken by that."""
        since = self._evidence.at(message.accepted_at) - CLOCKS_DIFFER_S
        processed_at = message.processed_at
        until = inf if processed_at is None else self._evidence.at(processed_at) + CLOCKS_DIFFER_S
        return self.possible.touches(since, until)

    def must_have_been(self, message: MessageRow) -> bool:
        """Tell whether every turn of this message found its session escalated."""
        return self._was(message, self._evidence.at(message.accepted_at))

    def must_have_overtaken(self, message: MessageRow) -> bool:
        """Tell whether this message's session was escalated when its turn was committed."""
        at = message.processed_at
        return at is not None and self._was(message, self._evidence.at(at) - 2 * CLOCKS_DIFFER_S)

    def _was(self, message: MessageRow, since: float) -> bool:
        """Tell whether a message's session was escalated from `since` until the message was processed."""
        if message.redriven_at is not None or message.processed_at is None:
            return False
        nr = bisect_right(self._certain, (since - CLOCKS_DIFFER_S, inf, "")) - 1
        if nr < 0:
            return False
        known = self._certain[nr]
        processed_at = self._evidence.at(message.processed_at) + CLOCKS_DIFFER_S
        return processed_at < known.until and message.session_id == known.session_id

    @cached_property
    def _certain(self) -> list[Certain]:
        return sorted([*self._certain_by_bot(), *self._certain_by_command()])

    def _certain_by_bot(self) -> Iterator[Certain]:
        for at, message in self._by_bot:
            if message.redriven_at is None:
                yield Certain(at, self._back_perhaps(at), message.session_id or "")

    def _certain_by_command(self) -> Iterator[Certain]:
        """Name the session only if it was in use before: nothing of it, nor of an earlier one, waited any more."""
        for command in self._person.commanded("escalate", "echo"):
            last = self._last_processed_before(command)
            if command.is_done and last is not None:
                yield Certain(command.ended_at, self._back_perhaps(command.at), last.session_id or "")

    def _last_processed_before(self, command: Command) -> MessageRow | None:
        """Return the last message accepted before a command, if it and all before were processed by then."""
        before = command.at - CLOCKS_DIFFER_S
        nr = bisect_right(self._person.messages, before, key=lambda one: self._evidence.at(one.accepted_at))
        last = self._person.messages[nr - 1] if nr else None
        if last is None or last.processed_at is None or last.redriven_at is not None:
            return None
        return last if self._evidence.at(last.processed_at) < before else None

    @cached_property
    def _by_bot(self) -> list[tuple[float, MessageRow]]:
        """Return the messages whose handler escalated, and when."""
        return [
            (self._evidence.at(message.processed_at), message)
            for message in self._person.messages
            if message.processed_at is not None
            and message.state == "processed"
            and deed_of(message.text) == "escalate"
            and message.seq in self._person.replies
        ]

    def _may_last(self, command: Command) -> tuple[float, float]:
        return command.at, self._back_surely(command.ended_at) if command.is_done else inf

    def _back_surely(self, at: float) -> float:
        return next((one.ended_at for one in self._given_back if one.is_done and one.at > at), inf)

    def _back_perhaps(self, at: float) -> float:
        """Return the first moment after `at` at which it may have been given back: by a human, or by its time-out."""
        policy = self._evidence.setup.channels.get(self._person.row.channel if self._person.row else "", {})
        timed_out_at = at + policy.get("escalation_timeout_s", ESCALATION_TIMEOUT_S)
        if any(not one.is_done and one.at < at for one in self._given_back):
            return at
        return min(timed_out_at, next((one.at for one in self._given_back if one.ended_at > at), inf))


def was_handled(message: MessageRow, person: Person, escalations: Escalations) -> bool | None:
    """Tell whether the turn that was committed asked the bot; None when nothing tells."""
    if message.state != "processed" or message.text == END_WORD:
        return False
    if message.seq in person.together:
        return True
    if escalations.rejects:
        return message not in person.late
    if message.seq in person.replies or answers_to(message.text, 1):
        return message.seq in person.replies
    if not escalations.may_have_been(message):
        return True
    return False if escalations.must_have_been(message) else None
