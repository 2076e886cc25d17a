"""All that is known of a run: the histories of its processes and the rows of its database, sorted by user.

Nothing in here, nor in the checks, knows the product's code. A history is read line by line and kept as small values:
an hour's run has millions of events.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from tests.chaos.checker import rows
from tests.chaos.checker.gathering import Address, Gathering
from tests.chaos.checker.journal import LOOK_UP, SEND, Journal, Request, journal_of, places_of
from tests.chaos.checker.records import (
    Begin,
    Call,
    Command,
    Commit,
    Fail,
    Fault,
    Finish,
    Lease,
    Letter,
    Load,
    Mark,
    OutFinish,
    OutLease,
    OutPark,
    Park,
    Read,
    Run,
    Said,
    Seen,
    Settle,
    Stall,
)
from tests.chaos.checker.rows import EventRow, MessageRow, OutputRow, ReplyRow, Rows, SessionRow, UserRow
from tests.chaos.checker.spans import Spans
from tests.chaos.history import Event
from tests.chaos.traffic.speech import BATCH, BUSY

CLOCKS_DIFFER_S = 0.05
"""How far a time of the database and one of a history may be apart and still mean the same moment."""

MOMENT_S = 0.05
"""Into how small parts the time of a crowded machine is divided."""


class Setup(NamedTuple):
    """How the service was set up."""

    seed: int = 0
    ttl_s: float = 3.0
    slots: int = 8
    send_slots: int = 32
    send_deadline_s: float = 2.0
    workers: int = 3
    attempts_max: int = 3
    turn_timeout_s: float = 3.0
    planned: Mapping[str, int] = {}
    """How many faults of each name the schedule has."""
    channels: Mapping[str, Mapping[str, Any]] = {}
    pooled: Sequence[str] = ()
    """The webs and workers that reach Postgres through a pooler."""
    mutant: str | None = None


@dataclass
class Person:
    """One user: what was heard of them, in the order of time, and what the database has of them.

    One of whom only the provider knows has no row, and the id `channel:sender`.
    """

    user_id: str
    row: UserRow | None = None
    letters: dict[str, Letter] = field(default_factory=dict)
    """What the provider sent, by external id."""
    names: set[str] = field(default_factory=set)
    """What the provider has called them."""
    addresses: list[Address] = field(default_factory=list)
    """Who they are to the provider: more than one are different people."""
    homes: tuple[str, ...] = ()
    """The users that have messages of theirs: more than one are one person, split."""
    events: list[EventRow] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    messages: list[MessageRow] = field(default_factory=list)
    """In the order of their numbers."""
    sessions: list[SessionRow] = field(default_factory=list)
    """In the order of their starts."""
    replies: dict[int, list[ReplyRow]] = field(default_factory=dict)
    """By the number of the message that they answer, in their order."""
    busy: list[ReplyRow] = field(default_factory=list)
    """What they were told who wrote while they were answered."""
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    """What users saw, by reply."""
    requests: dict[str, list[Request]] = field(default_factory=dict)
    """What their provider was asked to send, by reply."""
    look_ups: list[Request] = field(default_factory=list)
    """When their provider was asked what it has sent to them."""
    outputs: dict[str, list[OutputRow]] = field(default_factory=dict)
    """By message."""

    def take(self, reply: ReplyRow) -> None:
        """Take one of the replies, which come in their order."""
        (self.busy if reply.text == BUSY else self.replies.setdefault(reply.turn_seq, [])).append(reply)

    @cached_property
    def by_id(self) -> dict[str, MessageRow]:
        return {message.id: message for message in self.messages}

    @cached_property
    def all_replies(self) -> list[ReplyRow]:
        """Return their replies in the order in which they are to be sent."""
        replies = [*self.busy, *(reply for some in self.replies.values() for reply in some)]
        return sorted(replies, key=lambda reply: (reply.turn_seq, reply.ordinal))

    @cached_property
    def batches(self) -> dict[int, list[MessageRow]]:
        """Return the members of each committed turn, by the last one's number; a message alone stands for itself."""
        by_seq = {message.seq: message for message in self.messages}
        several = {
            by_id.seq: [by_seq[seq] for seq in output.data["seqs"]]
            for message_id, outputs in self.outputs.items()
            for output in outputs
            if output.name == BATCH and (by_id := self.by_id.get(message_id))
        }
        inside = {message.seq for batch in several.values() for message in batch}
        return several | {message.seq: [message] for message in self.messages if message.seq not in inside}

    @cached_property
    def together(self) -> frozenset[int]:
        """Tell who was answered together with others."""
        return frozenset(one.seq for batch in self.batches.values() if len(batch) > 1 for one in batch)

    @cached_property
    def late(self) -> list[MessageRow]:
        """Return the messages that came while one before them waited or ran: as the times say, taken under one lock."""
        late, done_at = list[MessageRow](), datetime.min.replace(tzinfo=UTC)
        for message in self.messages:
            if done_at > message.accepted_at:
                late.append(message)
            done_at = max(done_at, message.processed_at or datetime.max.replace(tzinfo=UTC))
        return late

    @cached_property
    def calls(self) -> list[Call]:
        return self._all(Call)

    @cached_property
    def leases(self) -> list[Lease]:
        return self._all(Lease)

    @cached_property
    def begins(self) -> list[Begin]:
        return self._all(Begin)

    @cached_property
    def commits(self) -> list[Commit]:
        return self._all(Commit)

    @cached_property
    def fails(self) -> list[Fail]:
        return self._all(Fail)

    @cached_property
    def releases(self) -> list[Finish | Park]:
        return [one for one in self.said if isinstance(one, Finish | Park) and not isinstance(one, OutFinish | OutPark)]

    @cached_property
    def out_leases(self) -> list[OutLease]:
        return self._all(OutLease)

    @cached_property
    def out_releases(self) -> list[OutFinish | OutPark]:
        return [one for one in self.said if isinstance(one, OutFinish | OutPark)]

    @cached_property
    def marks(self) -> list[Mark]:
        return self._all(Mark)

    @cached_property
    def settles(self) -> list[Settle]:
        return self._all(Settle)

    @cached_property
    def runs(self) -> list[Run]:
        return self._all(Run)

    @cached_property
    def reads(self) -> list[Read]:
        return self._all(Read)

    @cached_property
    def commands(self) -> list[Command]:
        return self._all(Command)

    def commanded(self, *names: str) -> list[Command]:
        """Return the commands of these names."""
        return [command for command in self.commands if command.name in names]

    def _all(self, kind: type) -> list[Any]:
        return [one for one in self.said if type(one) is kind]


@dataclass
class Evidence:
    """Everything about one run."""

    setup: Setup
    people: dict[str, Person]
    forgotten: dict[str, Person]
    """Those of whom nothing may be left: they are in no check but `forgetting`."""
    strangers: list[Seen]
    """What users saw, and what is no reply of the database."""
    told: Mapping[str, set[str]]
    """What the providers said of replies, and the service has answered, by reply."""
    requests: list[Request]
    """All that the providers received."""
    faults: list[Fault]
    stalls: list[Stall]
    loads: list[Load]
    taken: list[str]
    """The faults, by name, that were not carried out since others struck the same place."""
    calms: list[tuple[float, float]]
    phases: dict[str, float]
    leftovers: Mapping[str, Any] | None
    pids_of_workers: frozenset[int]
    dynos: Mapping[int, str]
    """Which of the workers each of their processes is."""
    lines_torn: int
    read_at: datetime
    """When the database was read, on its own clock."""
    wall_offset_s: float
    """What the database's clock is ahead of the histories'."""
    began_at: float
    ended_at: float

    def at(self, instant: datetime) -> float:
        """Tell a time of the database on the clock of the histories."""
        return instant.timestamp() - self.wall_offset_s

    def instant(self, at: float) -> datetime:
        """Tell a time of the histories on the database's clock."""
        return datetime.fromtimestamp(at + self.wall_offset_s, UTC)

    def when(self, at: float) -> str:
        """Word a time."""
        return f"{at - self.began_at:.3f} s"

    @cached_property
    def crashes(self) -> list[Run]:
        """Return the runs that ended their process, because their message said so."""
        return [run for person in self.people.values() for run in person.runs if run.result == "crashed"]

    @cached_property
    def stalled(self) -> Spans:
        """Tell when the machine had no CPU for some process: one that was frozen by a fault says nothing about that."""
        return Spans((stall.since, stall.until) for stall in self.stalls if not self._is_frozen(stall))

    @cached_property
    def crowded(self) -> Spans:
        """Tell by how much the machine had more to do than it can: of each moment, the part that others had of a core.

        So that what is left free of a wait is what it would have been on a machine that is not crowded.
        """
        return Spans(span for load in self.loads if load.ready_each > 1 for span in _part_of_others(load))

    def stood_still(self, pid: int) -> Spans:
        """Tell when this process did nothing, for whatever reason, or the machine had no CPU for others."""
        own = Spans((stall.since, stall.until) for stall in self.stalls if stall.pid == pid)
        return own.joined(self.stalled)

    def _is_frozen(self, stall: Stall) -> bool:
        return any(
            stall.pid in fault.pids and fault.at <= stall.until and stall.since <= fault.until
            for fault in self.faults
            if fault.name.startswith("freeze")
        )


def _part_of_others(load: Load) -> Iterator[tuple[float, float]]:
    """Cut a time into moments, and leave of each the part in which others run."""
    moment_s = (load.until - load.since) / max(1, round((load.until - load.since) / MOMENT_S))
    since = load.since
    while since < load.until - moment_s / 2:
        yield since + moment_s / load.ready_each, since + moment_s
        since += moment_s


def load(history: Path, received: Path, database_url: str) -> Evidence:
    """Read the histories in a folder, the journal of what the providers received, and the database as it is now."""
    gathering = Gathering()
    gathering.take_all(_events(history.glob("*.jsonl"), gathering))
    wall_offset_s = time.time() - time.monotonic()
    journal = journal_of(_events([received], gathering), wall_offset_s)
    return of(gathering, rows.read(database_url, gathering.same), journal, wall_offset_s)


def collect(events: Iterable[Event], found: Rows, journal: Journal) -> Evidence:
    """Make the same of events, rows and a journal that are at hand."""
    gathering = Gathering()
    gathering.take_all(events)
    return of(gathering, found, journal, 0.0)


def of(gathering: Gathering, found: Rows, journal: Journal, wall_offset_s: float) -> Evidence:
    """Join what was gathered with the rows and the journal."""
    people, forgotten = _people(gathering, found)
    strangers = _sorted_in(people, found, (one for one in journal.seen if not _is_of(gathering.words, one)))
    _sort_requests_in(people, found, journal.requests)
    setup = gathering.setup
    known = {name: setup[name] for name in Setup._fields if name in setup}
    return Evidence(
        setup=Setup(**known),
        people=people,
        forgotten=forgotten,
        strangers=strangers,
        told=journal.told,
        requests=journal.requests,
        faults=sorted(gathering.faults.values(), key=lambda fault: fault.at),
        stalls=sorted(gathering.stalls),
        loads=gathering.loads,
        taken=gathering.taken,
        calms=gathering.calms(),
        phases=gathering.phases,
        leftovers=gathering.leftovers,
        pids_of_workers=frozenset(
            one.pid
            for person in (*people.values(), *forgotten.values())
            for one in (*person.leases, *person.out_leases)
        ),
        dynos=gathering.dynos,
        lines_torn=gathering.lines_torn,
        read_at=found.read_at,
        wall_offset_s=wall_offset_s,
        began_at=gathering.began_at if gathering.began_at < inf else 0.0,
        ended_at=gathering.ended_at,
    )


def _is_of(words: Iterable[str], one: Seen) -> bool:
    """Tell whether a reply that was seen has one of these words."""
    return any(word in one.text for word in words)


def _people(gathering: Gathering, found: Rows) -> tuple[dict[str, Person], dict[str, Person]]:
    """Sort everything by user; return also those of whom nothing may be left."""
    forgotten = {user_id: Person(user_id) for user_id in gathering.forgotten}
    gone = {address: user_id for user_id, address in gathering.forgotten.items()}
    people = {row.id: Person(row.id, row) for row in found.users if row.id not in forgotten}
    ids = {(row.channel, row.sender): row.id for row in found.users}
    homes = {message.external_id: message.user_id for message in found.messages}

    def person(user_id: str) -> Person:
        return forgotten.get(user_id) or people.setdefault(user_id, Person(user_id))

    for user_id, said in gathering.said.items():
        person(user_id).said = said
    for (channel, sender), letters in gathering.letters.items():
        of_theirs = tuple(dict.fromkeys(homes[name] for name in letters if name in homes))
        known_as = of_theirs[0] if of_theirs else ids.get((channel, sender), f"{channel}:{sender}")
        known = person(gone.get((channel, sender), known_as))
        known.letters |= letters
        known.names |= gathering.names[channel, sender]
        known.addresses.append((channel, sender))
        known.homes += of_theirs
        known.said += gathering.posted[channel, sender]
    for session in found.sessions:
        person(session.user_id).sessions.append(session)
    for event in found.events:
        person(event.user_id).events.append(event)
    for message in found.messages:
        person(message.user_id).messages.append(message)
    for reply in found.replies:
        person(reply.user_id).take(reply)
    owners = {message.id: message.user_id for message in found.messages}
    for output in found.outputs:
        person(owners[output.message_id]).outputs.setdefault(output.message_id, []).append(output)
    for one in (*people.values(), *forgotten.values()):
        one.said.sort(key=lambda said: said.at)
    return people, forgotten


def _sorted_in(people: Mapping[str, Person], found: Rows, seen: Iterable[Seen]) -> list[Seen]:
    """Give everybody what they saw; return what nobody can place."""
    owners = {reply.id: reply.user_id for reply in found.replies}
    keys = {reply.text: reply.id for reply in found.replies}  # some providers carry no key of ours; no text comes twice
    strangers = []
    for one in seen:
        key = one.key or keys.get(one.text, "")
        if owners.get(key) in people:
            people[owners[key]].seen.setdefault(key, []).append(one)
        else:
            strangers.append(one)
    return strangers


def _sort_requests_in(people: Mapping[str, Person], found: Rows, requests: Iterable[Request]) -> None:
    """Give everybody what their provider was asked about them: a look-up names a conversation, and no reply."""
    owners = {reply.id: people.get(reply.user_id) for reply in found.replies}
    keys = {reply.text: reply.id for reply in found.replies}
    whose = {
        (address[0], name): person
        for person in people.values()
        for address in person.addresses
        for name in person.names
    }
    for one in requests:
        if one.what == SEND and (person := owners.get(key := one.key or keys.get(one.text, ""))):
            person.requests.setdefault(key, []).append(one)
            whose.update(dict.fromkeys(places_of(one), person))
    for one in (one for one in requests if one.what == LOOK_UP):
        if person := next(filter(None, map(whose.get, places_of(one))), None):
            person.look_ups.append(one)


def _events(paths: Iterable[Path], gathering: Gathering) -> Iterator[Event]:
    """Read all files, one after the other. A process may have been killed in the middle of its last line."""
    for path in sorted(paths):
        with path.open() as lines:
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError:
                    gathering.lines_torn += 1
