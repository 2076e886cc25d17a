"""The reference: `pgbench`, written in C, making the same SQL calls and nothing else.

One of its transactions is one user's conversation, message after message, the session id passed on as ours is; its
clients divide the users among them, so that no two have the same. The program is part of the embedded PostgreSQL.
"""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from bench.stack import CHANNEL, Stack
from bench.workload import Workload
from onelane.postgres.connection import session_options

KNOWN = (
    f"SELECT user_id FROM user_aliases WHERE channel = '{CHANNEL}' "  # noqa: S608 - a constant of ours
    "AND alias = 'user ' || :person::text \\gset"
)
ACCEPT = (
    "SELECT answer ->> 'user_id' AS user_id FROM json_array_elements(accept(jsonb_build_array(jsonb_build_object("  # noqa: S608 - a constant of ours
    f"'channel', '{CHANNEL}', 'senders', jsonb_build_array('user ' || :person::text), "
    "'external_id', :person::text || '-' || {id}, 'text', 'message ' || {id}, 'backlog_max', 1000)))) answer \\gset"
)
BEGIN = (
    "SELECT turn -> 'version' AS version, turn -> 'messages' -> 0 -> 'seq' AS seq, "
    "turn -> 'messages' -> 0 ->> 'text' AS text, turn -> 'session' ->> 'id' AS session_id "
    "FROM (SELECT begin_turns(jsonb_build_array(jsonb_build_object("
    "'user_id', :user_id::text, 'fence', 1, 'hint', {hint}))) -> 0 -> 'turn' AS turn) AS answer \\gset"
)
COMMIT = (
    "SELECT settle_turns(jsonb_build_array(jsonb_build_object('user_id', :user_id::text, 'fence', 1, "
    "'version', :version::bigint, 'seqs', jsonb_build_array(:seq::bigint), 'session_id', :session_id::text, "
    "'effects', jsonb_build_object('replies', jsonb_build_array(jsonb_build_object('text', :text::text))))))"
    " AS c \\gset"
)
NEXT_PERSON = ["\\set person :client_id + :clients * :conversation", "\\set conversation :conversation + 1"]
ANY_PERSON = ["\\set person random(1, :users)", "\\set conversation :conversation + 1"]
ANY_ID = "concat_ws('-', :client_id::text, :conversation::text)"
THREADS = 2
CLIENTS_AT_A_RATE = 4
BATCH = 50
LATENCY_US, ENDED_S, ENDED_US = 2, 4, 5
"""Columns of its log; at a rate, latency counts from when a transaction was due."""


@dataclass(frozen=True)
class Pgbench:
    """The SQL calls of a drain, with or without accepting."""

    name: str
    accepts: bool
    share: float = 1.0
    sizes: tuple[int, ...] = (4, 8, 16)
    is_tuned: bool = True
    unit: str = "client"

    def accept(self, stack: Stack, workload: Workload) -> None:
        """Commit the messages beforehand, if accepting is no part of the run."""
        if self.accepts:
            return
        deliveries = workload.deliveries()
        for start in range(0, len(deliveries), BATCH):
            batch = [one.model_dump(mode="json", exclude_none=True) for one in deliveries[start : start + BATCH]]
            stack.do("SELECT accept(%s)", Jsonb([{**one, "channel": CHANNEL} for one in batch]))

    def commands(self, stack: Stack, workload: Workload, size: int) -> list[list[str]]:
        """Start one pgbench; it ends by itself."""
        script = stack.folder / "conversation.sql"
        script.write_text("\n".join(self._conversation(workload.messages // workload.users)) + "\n")
        transactions = ["-t", str(ceil(workload.users / size)), "-D", f"users={workload.users}"]
        return [command(stack, script, size, *transactions)]

    def _conversation(self, messages: int) -> list[str]:
        lines = [*NEXT_PERSON, "\\if :person < :users", *([] if self.accepts else [KNOWN])]
        for number in range(1, messages + 1):
            if self.accepts:
                lines.append(ACCEPT.format(id=f"'{number}'"))
            lines += [BEGIN.format(hint=":session_id::text" if number > 1 else "NULL"), COMMIT]
        return [*lines, "\\endif"]


def at_a_rate(stack: Stack, users: int, rate: int, seconds: int, log_prefix: Path, *, turns: bool) -> list[str]:
    """Return the command of a run in which a random user writes `rate` times a second; its log holds each time."""
    script = stack.folder / "message.sql"
    lines = [*ANY_PERSON, ACCEPT.format(id=ANY_ID), *([BEGIN.format(hint="NULL"), COMMIT] if turns else [])]
    script.write_text("\n".join(lines) + "\n")
    options = ["-D", f"users={users}", "-T", str(seconds), "-R", str(rate), "-l", f"--log-prefix={log_prefix}"]
    return command(stack, script, CLIENTS_AT_A_RATE, *options)


def logged(prefix: Path) -> list[tuple[float, float]]:
    """Read from the logs of a run at a rate, of each call, when it was due, in s, and how many ms it took from then."""
    lines = [line.split() for log in prefix.parent.glob(f"{prefix.name}.*") for line in log.read_text().splitlines()]
    calls = [(int(line[ENDED_S]) + int(line[ENDED_US]) / 1e6, int(line[LATENCY_US]) / 1000) for line in lines]
    return [(ended - took_ms / 1000, took_ms) for ended, took_ms in calls]


def command(stack: Stack, script: Path, clients: int, *options: str) -> list[str]:
    """Return the command of a run of a script, with prepared statements and the settings of our connections."""
    program = str(stack.postgres.psql.with_name("pgbench"))
    known = ["-D", f"clients={clients}", "-D", "conversation=0"]
    concurrency = ["-c", str(clients), "-j", str(min(THREADS, clients))]
    server = make_conninfo(stack.postgres.url, options=session_options(stack.postgres.url))
    return [program, "-n", "-M", "prepared", *concurrency, *known, *options, "-f", str(script), server]


TURNS = Pgbench("pgbench, begin + commit", accepts=False)
WHOLE_WAY = Pgbench("pgbench, accept + begin + commit", accepts=True)
