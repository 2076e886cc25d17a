"""A healthy run of one user, told by hand: tests change it in one place and see what the checks say.

Times are seconds on one clock for histories and database.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tests.chaos.checker.evidence import Evidence, collect
from tests.chaos.checker.journal import Journal, Request
from tests.chaos.checker.records import Seen
from tests.chaos.checker.rows import MessageRow, OutputRow, ReplyRow, Rows, SessionRow, UserRow
from tests.chaos.traffic.speech import CANARY, TOOL, answers_to

USER, SENDER, CHANNEL = "the-user", "+33990001", "demo"
Fields = dict[str, Any]

SETUP = {"ttl_s": 3, "slots": 4, "workers": 2, "attempts_max": 3, "channels": {CHANNEL: {"idle_timeout_s": 60}}}
DEEDS = ("echo", "tool", "say", "state", "bye", "echo", "echo")
POST_S, TURN_S = 0.01, 0.1


def instant(at: float) -> datetime:
    """Tell a moment as the database has it."""
    return datetime.fromtimestamp(at, UTC)


def message_id(seq: int) -> str:
    """Name a message."""
    return f"message-{seq}"


def text_of(seq: int) -> str:
    """Tell what a message says."""
    word = DEEDS[seq - 1]
    return f"{CANARY} {word} {2 if word == 'say' else '-'} tag{seq}"


class Tale:
    """A run's history and rows as they must be, open to change. Message n comes at 10·n and is done 0.1 s later."""

    def __init__(self) -> None:
        self.events: list[Fields] = []
        self.messages: list[Fields] = []
        self.replies: list[Fields] = []
        self.seen: list[Fields] = []
        self.outputs: list[Fields] = []
        self.told: list[tuple[str, str]] = []
        self.requests: list[Fields] = []
        self.sessions: list[Fields] = []
        self.leftovers: Fields | None = {"orphans": []}
        self.read_at = 100.0
        self.note("setup", 0, **SETUP)
        self.user: Fields = {
            "id": USER,
            "channel": CHANNEL,
            "sender": SENDER,
            "last_seq": 0,
            "waiting": 0,
            "state": {"n": 0},
        }
        for word in DEEDS:
            self.say(word)

    def note(self, kind: str, at: float, **fields: Any) -> Fields:
        """Add an event."""
        event = {"kind": kind, "at": at, "who": "x", "pid": 1, **fields}
        self.events.append(event)
        return event

    def say(self, word: str) -> None:
        """Let the user write, and the bot answer."""
        seq = len(self.messages) + 1
        at, text = 10.0 * seq, text_of(seq)
        self.post(seq, text, at)
        session = self.session_at(at)
        self.turn(seq, at + 0.02, 1, seq, session["id"])
        self.messages.append(
            {
                "id": message_id(seq), "user_id": USER, "session_id": session["id"], "seq": seq, "state": "processed",
                "external_id": f"x{seq}", "text": text, "accepted_at": instant(at + POST_S / 2),
                "processed_at": instant(at + TURN_S), "attempts": 0, "redriven_at": None, "end_at": None,
            }
        )  # fmt: skip
        session["state"]["n"] += 1
        self.user["state"]["n"] += 1
        self.user["last_seq"] = seq
        for ordinal, answer in enumerate(answers_to(text, session["state"]["n"]), 1):
            self.reply(seq, ordinal, answer, session["id"], at + 0.1 + 0.1 * ordinal)
            self.ship(self.replies[-1]["id"], at + 0.07 + 0.1 * ordinal, 1, seq + ordinal / 10)
        if word == "tool":
            data = {"key": f"{message_id(seq)}:{seq}", "seq": seq}
            self.outputs.append(
                {"session_id": session["id"], "message_id": message_id(seq), "name": TOOL, "data": data}
            )
        if word == "bye":
            session |= {"status": "ended", "ended_at": session["last_message_at"], "ended_reason": "handler"}

    def reply(self, seq: int, ordinal: int, text: str, session_id: str, at: float) -> None:
        """Let the bot's answer be sent, and seen."""
        name = f"reply-{seq}.{ordinal}"
        self.replies.append(
            {
                "id": name, "user_id": USER, "session_id": session_id, "turn_seq": seq, "ordinal": ordinal,
                "state": "sent", "text": text, "failure": None, "given_up_at": None,
                "committed_at": instant(10 * seq + TURN_S), "sent_at": instant(at + 0.01), "failed_at": None,
            }
        )  # fmt: skip
        self.seen.append({"at": at, "n": len(self.seen) + 1, "key": name, "copy": 1, "text": text})
        self.ask("send", at, name, text)

    def mark(self, reply_id: str, at: float, pid: int, fence: float = 9, attempt: int = 1) -> None:
        """Let a worker mark a reply as being sent."""
        lane = {"pid": pid, "user_id": USER, "fence": fence}
        self.note("out_begin", at, since=at - 0.01, **lane, outcome="send", reply_id=reply_id, attempt=attempt)

    def ship(self, reply_id: str, at: float, pid: int, fence: float) -> None:
        """Let a worker send a reply: from its lease, which it gives on, to its release."""
        lane = {"pid": pid, "user_id": USER, "fence": fence}
        token = f"out {pid}:{fence}"
        self.note("out_lease", at, since=at - 0.01, **lane, token=token, taken_over=False)
        self.mark(reply_id, at + 0.02, pid, fence)
        settled = {"reply_id": reply_id, "attempt": 1, "deed": "accepted", "outcome": "settled"}
        self.note("out_settle", at + 0.05, since=at + 0.04, **lane, **settled)
        self.note("out_finish", at + 0.06, since=at + 0.05, pid=pid, user_id=USER, token=token, released="forgotten")

    def ask(self, what: str, at: float, key: str | None = None, text: str = "", fault: str | None = None) -> None:
        """Let the provider be asked to send something, or about somebody."""
        this = {"channel": CHANNEL, "user": SENDER, "key": key, "text": text, "what": what, "fault": fault}
        self.requests.append({"at": at, "n": len(self.requests) + 1, **this})

    def post(self, seq: int, text: str, at: float) -> None:
        """Deliver a message, and be answered."""
        this = {"delivery": f"d{seq}", "attempt": 1}
        letter = {"sender": SENDER, "external_id": f"x{seq}", "text": text}
        told = {"user_id": USER, "message_id": message_id(seq), "seq": seq, "duplicate": False}
        self.note("send", at, **this, web="web-1", channel=CHANNEL, messages=[letter])
        self.note("ack", at + POST_S, **this, status=202, accepted=[told])

    def turn(self, seq: int, at: float, pid: int, fence: float, session_id: str = "session-1") -> None:
        """Let a worker do a whole turn."""
        text = text_of(seq)
        lane = {"pid": pid, "user_id": USER, "fence": fence}
        this = {"message_id": message_id(seq), "session_id": session_id}
        begun = {"seqs": [seq], "superseded": 0, "session_status": "active"}
        run = {"run": f"run-{seq}-{pid}-{at}", "pid": pid, "members": [message_id(seq)]}
        token = f"{pid}:{fence}"
        self.note("lease", at, since=at - 0.01, **lane, token=token, taken_over=False)
        self.note("begin", at + 0.01, since=at, **lane, **this, outcome="turn", seq=seq, **begun)
        self.note("start", at + 0.02, **run, user_id=USER, sender=SENDER, seq=seq, text=text, **this)
        self.note("end", at + 0.04, **run, result="ok")
        self.note("commit", at + 0.09, since=at + 0.05, **lane, **this, outcome="committed")
        self.note("finish", at + 0.1, since=at + 0.09, pid=pid, user_id=USER, token=token, released="forgotten")

    def session_at(self, at: float) -> Fields:
        """Find the session of a message that comes now."""
        accepted_at = instant(at + POST_S / 2)
        if not self.sessions or self.sessions[-1]["status"] == "ended":
            self.sessions.append(
                {
                    "id": f"session-{len(self.sessions) + 1}", "user_id": USER, "status": "active",
                    "started_at": accepted_at, "last_message_at": accepted_at, "ended_at": None, "ended_reason": None,
                    "state": {"n": 0},
                }
            )  # fmt: skip
        self.sessions[-1]["last_message_at"] = accepted_at
        return self.sessions[-1]

    def find(self, kind: str, **fields: Any) -> Fields:
        """Return the first event like this."""
        return next(event for event in self.events if event["kind"] == kind and fields.items() <= event.items())

    def command(self, name: str, at: float, until: float, **fields: Any) -> None:
        """Let the operator do something."""
        this = {"name": name, "user_id": USER, "message_id": None, "after_seq": 0, **fields}
        self.note("command", at, **this, phase="begin")
        self.note("command", until, **this, phase="end", is_done=True, answer=True)

    def fault(
        self,
        at: float,
        until: float,
        name: str = "freeze-worker",
        pids: Sequence[int] = (),
        target: str = "worker-1/process",
    ) -> None:
        """Do something, to a worker if nothing else is named."""
        this = {"span": at, "name": name, "target": target}
        self.note("fault", at, **this, phase="begin")
        self.note("fault", until, **this, phase="end", pids=list(pids))

    def evidence(self) -> Evidence:
        """Make what the checks take."""
        if self.leftovers is not None:
            self.note("leftovers", 1000, **self.leftovers)
        rows = Rows(
            [UserRow(**self.user)],
            [SessionRow(**session) for session in self.sessions],
            [MessageRow(**message) for message in self.messages],
            [ReplyRow(**reply) for reply in self.replies],
            [OutputRow(**output) for output in self.outputs],
            instant(self.read_at),
        )
        told = defaultdict[str, set[str]](set)
        for key, word in self.told:
            told[key].add(word)
        requests = [Request(**one) for one in self.requests]
        return collect(self.events, rows, Journal([Seen(**one) for one in self.seen], told, requests))
