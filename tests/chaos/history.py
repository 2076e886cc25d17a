"""What a run leaves behind: every process appends one JSON object a line to a file of its own.

A line is written with one system call, so that a process killed right after has said it. Times are of the machine's
monotonic clock in seconds, the same in all its processes. `at` is when something was known; a worker's events of calls
to Postgres and Redis also say `since`, when it was asked for.

| kind | by | fields |
|---|---|---|
| `setup` | harness | what the run was set up with, in seconds and numbers; `channels`, `planned`, `pooled` (1) |
| `phase` | harness | `name`: storm, heal, drain, settled |
| `calm` | harness | `phase`: begin, end. No fault begins or lasts between the two |
| `fault` | harness | `span` (its number), `name`, `target`, `phase`: begin, end; `pids` (2) |
| `skipped` | harness | a planned fault's `name`, `target`; `is_taken`: by another; else the target was not there |
| `leftovers` | harness | what was found after the drain, one list a name: each must be empty |
| `send` | provider | `delivery`, `attempt`, `web`, `channel`, `messages`: `sender`, `senders`, `external_id`, `text` |
| `rename` | provider | `channel`, `sender`, `names`: what the person is called from now on |
| `ack` | provider | `delivery`, `attempt`, `status`, `accepted`: [{`user_id`, `message_id`, `seq`, `duplicate`}] (3) |
| `no_ack` | provider | `delivery`, `attempt`, `why` |
| `forgotten` | provider, harness | `user_id`, `channel`, `sender`, `words`: none of these is to be left anywhere |
| `command` | provider | `name`, `user_id`, `message_id`, `after_seq`, `phase`: begin, end; `is_done`, `answer` (4) |
| `read` | provider | `user_id`, `replies`: [{`turn_seq`, `ordinal`, `text`, `state`}] as the service shows them |
| `lease` | worker | `user_id`, `token`, `fence`, `taken_over` |
| `begin` | worker | `user_id`, `fence`, `outcome`, `session_id`, `session_status`, and of the batch (9) |
| `commit` | worker | `user_id`, `fence`, `message_id`, `session_id`, `outcome` (5) |
| `fail` | worker | the same of a failed turn: `outcome` retry, dead, paused, later, already, fenced (5) |
| `finish` | worker | `user_id`, `token`, `released` |
| `park` | worker | `user_id`, `token`, `delay_s`, `is_parked` (false: the lease was lost) |
| `boot` | worker | `dyno`: which of the workers this process is |
| `out_lease`, `out_finish`, `out_park` | worker | the same of a lane of replies |
| `out_begin` | worker | `user_id`, `fence`, `outcome`, `reply_id`, `attempt`, `wait_ms` (10) |
| `out_settle` | worker | `user_id`, `fence`, `reply_id`, `attempt`, `deed`, `outcome` (10) |
| `stall` | worker, web, provider, harness | `since`, `until`: this process got no CPU for so long |
| `load` | harness | `since`, `until`, `ready_each`: how many threads were ready to run, for each core |
| `start` | bot | `run` (unique), `user_id`, `sender`, `session_id`, `order` (6), and of the batch (9) |
| `newer` | bot | `run`: it asks for what has arrived since |
| `call` | bot | `user_id`, `batch`, `key`, `phase`: begin (a model is asked), answered, kept (its answer is) |
| `alive` | bot | `run`: a sign of life of a run that takes long |
| `end` | bot | `run`, `result`: ok, raised, cancelled, crashed (its process ends now), unread (7); `members` (9) |

(1) Slots are a worker's. `channels`: name → policy. `planned`: how many faults of each name the schedule has.
`pooled`: the webs and workers that reach Postgres through a pooler.
(2) The processes that were killed, stopped, or given an order. Its end also has `survived`, those of them that could
not work and that nobody replaced in time; `user_id`, whose row was locked; `is_missed`, whether nothing was struck;
`detail`, what of the target was: of a drop, which calls' answers or requests; `flushed_at`, when Redis forgot.
(3) In the order sent; empty where a channel's kind of answer does not tell.
(4) `name`: end, escalate, hand_back, pause, resume, forget, redrive (which has the `message_id`), or echo, which is a
colleague's (`message_id` is the provider's, `nr` says which). `after_seq`: the last number that the user's messages had
got. The end also says `is_done` (false: given up) and `answer`, what the service said.
(5) Of a commit: committed, already, fenced, stale, superseded. Of both: unknown, when nobody answered.
(6) What the storm ordered this run to do: block, hang.
(7) unread: the service's own reads failed in it.
What the providers received and showed is in a journal of theirs: see `onelane/testing/fake_providers/journal.py`.
(9) A turn has a batch, which its first message names: `message_id`, `seq`, and by the worker `deaths`, `seqs` of all,
`superseded`: how many of its turns were thrown away before; by the bot `text`, and `members`: all ids, also of what it
took in.
(10) A mark: `send`, `unknown`, or why no reply is sent now: wait (for `wait_ms`), held, full, idle, fenced. Of a
settle, `deed` is what was to be stored of a request; `outcome`: settled, already, fenced, or unknown.
(8) Of a `send`, `sender` is the person, called for ever by their first name; `senders`: the names of the message.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

HISTORY = "CHAOS_HISTORY"
"""The environment variable that names the folder; the processes of a run inherit it."""

Event = dict[str, Any]


class Recorder:
    """Appends one process's events. Safe in threads; a forked child opens a file of its own."""

    def __init__(self, who: str, folder: Path | None = None) -> None:
        self._who = who
        self._folder = folder or Path(os.environ[HISTORY])
        self._opened = (0, -1)
        """The process that opened the file, and the file: both at once, since threads may open it at the same time."""

    def note(self, kind: str, **fields: Any) -> None:
        """Append one event, stamped with the time, the process and its role."""
        event = {"at": time.monotonic(), "kind": kind, "who": self._who, "pid": os.getpid(), **fields}
        line = json.dumps(event, default=str, separators=(",", ":")) + "\n"
        os.write(self._own_file(), line.encode())

    def _own_file(self) -> int:
        pid, file = self._opened
        if pid != os.getpid():
            path = self._folder / f"{self._who}-{os.getpid()}.jsonl"
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._opened = (os.getpid(), file)
        return file


def read(folder: Path, who: str = "*") -> list[Event]:
    """Return the events of one role's processes, or of all, in the order in which they happened."""
    files = folder.glob(f"{who}-*.jsonl")
    return sorted((event for path in files for event in _lines(path)), key=lambda event: event["at"])


def _lines(path: Path) -> Iterator[Event]:
    """Read a file's events; a killed process may have left a torn line."""
    with path.open() as lines:
        for line in lines:
            with suppress(ValueError):
                yield json.loads(line)
