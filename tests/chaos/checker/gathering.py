"""Sorts the events of histories into what belongs together: by user, by letter, by fault."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

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
    Posted,
    Read,
    Run,
    Said,
    Settle,
    Stall,
)
from tests.chaos.history import Event

PLAIN: Mapping[str, type] = {
    "lease": Lease,
    "begin": Begin,
    "call": Call,
    "commit": Commit,
    "fail": Fail,
    "finish": Finish,
    "out_begin": Mark,
    "out_finish": OutFinish,
    "out_lease": OutLease,
    "out_park": OutPark,
    "out_settle": Settle,
    "park": Park,
    "read": Read,
}
"""Kinds whose events are complete in themselves, and about one user."""
Address = tuple[str, str]
"""Channel and person, called by their first name."""


class Gathering:
    """Takes events in any order of files; those of one file come in the order of time."""

    def __init__(self) -> None:
        self.setup: Event = {}
        self.phases: dict[str, float] = {}
        self.faults: dict[int, Fault] = {}
        self.stalls: list[Stall] = []
        self.loads: list[Load] = []
        self.taken: list[str] = []
        """The faults, by name, that were not carried out since others struck the same place."""
        self.dynos: dict[int, str] = {}
        """Which of the workers each of their processes is."""
        self.leftovers: Event | None = None
        self.said: dict[str, list[Said]] = defaultdict(list)
        self.letters: dict[Address, dict[str, Letter]] = defaultdict(dict)
        self.names: dict[Address, set[str]] = defaultdict(set)
        """What the provider has called each person."""
        self.posted: dict[Address, list[Posted]] = defaultdict(list)
        self.forgotten: dict[str, Address] = {}
        """Users of whom nothing may be left, and who they were."""
        self.words: set[str] = set()
        """What may be left nowhere."""
        self.lines_torn = 0
        self.began_at, self.ended_at = inf, -inf
        self._texts: dict[str, str] = {}
        self._runs: dict[str, Run] = {}
        self._letters_of: dict[str, list[Letter]] = {}
        self._open_commands: dict[tuple[str, str, str | None], Command] = {}
        self._calms: list[Event] = []

    def take_all(self, events: Iterable[Event]) -> None:
        """Take all events, then join what came apart: the run of a killed process has no end, a command perhaps."""
        for event in events:
            self._take(event)

    def same(self, value: Any) -> Any:
        """Return the first of equal texts."""
        return self._texts.setdefault(value, value) if isinstance(value, str) else value

    def calms(self) -> list[tuple[float, float]]:
        """Return the calm periods; one that nobody ended ends with the run."""
        begins = [event["at"] for event in self._calms if event["phase"] == "begin"]
        ends = [event["at"] for event in self._calms if event["phase"] == "end"]
        return list(zip(begins, [*ends, *[self.ended_at] * (len(begins) - len(ends))], strict=True))

    def _take(self, event: Event) -> None:
        kind, at = event["kind"], event["at"]
        self.began_at, self.ended_at = min(self.began_at, at), max(self.ended_at, at)
        if kind in PLAIN:
            self._note(self._as(PLAIN[kind], event))
        elif take := getattr(self, f"_take_{kind}", None):
            take(event)

    def _as(self, shape: Any, event: Event) -> Any:
        event.setdefault("since", event["at"])
        return shape(*(self.same(event.get(name)) for name in shape._fields))

    def _note(self, said: Any) -> None:
        self.said[said.user_id].append(said)

    # the harness

    def _take_setup(self, event: Event) -> None:
        self.setup = event

    def _take_phase(self, event: Event) -> None:
        self.phases[event["name"]] = event["at"]

    def _take_calm(self, event: Event) -> None:
        self._calms.append(event)

    def _take_fault(self, event: Event) -> None:
        if event["phase"] == "begin":
            fault = Fault(event["at"], event["span"], event["name"], event["target"])
            self.faults[fault.span] = fault
        else:
            fault = self.faults[event["span"]]
            fault.until = event["at"]
            fault.pids = tuple(event.get("pids") or ())
            fault.survived = tuple(event.get("survived") or ())
            fault.user_id = self.same(event.get("user_id"))
            fault.is_missed = bool(event.get("is_missed"))
            fault.detail = event.get("detail") or ""
            fault.flushed_at = event.get("flushed_at")

    def _take_leftovers(self, event: Event) -> None:
        self.leftovers = {name: found for name, found in event.items() if name not in {"at", "kind", "who", "pid"}}

    def _take_stall(self, event: Event) -> None:
        self.stalls.append(Stall(event["since"], event["until"], event["who"], event["pid"]))

    def _take_skipped(self, event: Event) -> None:
        self.taken += [event["name"]] if event["is_taken"] else []

    def _take_load(self, event: Event) -> None:
        self.loads.append(Load(event["since"], event["until"], event["ready_each"]))

    def _take_boot(self, event: Event) -> None:
        self.dynos[event["pid"]] = self.same(event["dyno"])

    # the bot

    def _take_start(self, event: Event) -> None:
        names = ("pid", "run", "user_id", "sender", "message_id", "seq", "session_id", "text")
        run = Run(event["at"], *(self.same(event[name]) for name in names))
        run.seen_at, run.order = run.at, self.same(event.get("order"))
        run.members = frozenset(map(self.same, event.get("members") or [event["message_id"]]))
        self._runs[run.run] = run
        self._note(run)

    def _take_alive(self, event: Event) -> None:
        if run := self._runs.get(event["run"]):
            run.seen_at = max(run.seen_at, event["at"])

    def _take_end(self, event: Event) -> None:
        if run := self._runs.pop(event["run"], None):
            run.ended_at, run.result = event["at"], self.same(event["result"])
            run.members = frozenset(map(self.same, event.get("members", run.members)))

    def _take_newer(self, event: Event) -> None:
        if run := self._runs.get(event["run"]):
            run.newer_at = min(run.newer_at, event["at"])

    # the provider

    def _take_send(self, event: Event) -> None:
        letters = [self._letter(event, message) for message in event["messages"]]
        self._letters_of[event["delivery"]] = letters
        self._post(event, letters, "send")

    def _letter(self, event: Event, message: Event) -> Letter:
        address = self.same(event["channel"]), self.same(message["sender"])
        self.names[address].update(message.get("senders") or [message["sender"]])
        name, text = self.same(message["external_id"]), self.same(message["text"])
        letter = self.letters[address].setdefault(name, Letter(*address, name, text, event["at"]))
        letter.sent_at = min(letter.sent_at, event["at"])
        if letter.text != text:
            letter.conflicting_text = text
        return letter

    def _take_rename(self, event: Event) -> None:
        self.names[event["channel"], event["sender"]].update(event["names"])

    def _take_forgotten(self, event: Event) -> None:
        self.forgotten[self.same(event["user_id"])] = self.same(event["channel"]), self.same(event["sender"])
        self.words.update(event["words"])

    def _take_ack(self, event: Event) -> None:
        letters = self._letters_of[event["delivery"]]
        self._post(event, letters, str(event["status"]))
        if event["status"] // 100 != 2:
            return
        for nr, letter in enumerate(letters):
            letter.acked_at = min(letter.acked_at, event["at"])
            if event["accepted"]:
                told = event["accepted"][nr]
                letter.answers += ({name: self.same(value) for name, value in told.items()},)

    def _take_no_ack(self, event: Event) -> None:
        self._post(event, self._letters_of[event["delivery"]], self.same(event["why"]))

    def _post(self, event: Event, letters: list[Letter], what: str) -> None:
        for letter in letters:
            web = self.same(event.get("web", ""))
            posted = Posted(event["at"], letter.external_id, self.same(event["delivery"]), what, web)
            self.posted[letter.channel, letter.sender].append(posted)

    def _take_command(self, event: Event) -> None:
        key = event["user_id"], event["name"], event.get("message_id")
        if event["phase"] == "begin":
            command = Command(
                event["at"], *(self.same(event.get(name)) for name in ("user_id", "name", "message_id", "after_seq"))
            )
            self._open_commands[key] = command
            self._note(command)
        elif key in self._open_commands:
            command = self._open_commands.pop(key)
            command.ended_at, command.is_done = event["at"], bool(event["is_done"])
            command.answer = event.get("answer")
