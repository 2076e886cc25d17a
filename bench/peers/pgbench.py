"""The reference: `pgbench`, written in C, making the same SQL calls and nothing else.

One of its transactions is one user's conversation, message after message, the session id passed on as ours is; its
clients divide the users among them, so that no two have the same. The program is part of the embedded PostgreSQL.
"""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

from psycopg.types.json import Jsonb

from bench.stack import CHANNEL, Stack
from bench.workload import Workload

USER = "md5(:person::text)::uuid"
ACCEPT = (
    f"SELECT * FROM accept('{CHANNEL}', jsonb_build_array(jsonb_build_object('user_id', {USER}, "  # noqa: S608 - a text of ours
    "'sender', :person::text, 'external_id', {id}, 'text', 'message')), 1000) \\gset a_"
)
BEGIN = f"SELECT * FROM begin_turn({USER}, 1, {{hint}}) \\gset"  # noqa: S608
COMMIT = (
    f"SELECT * FROM commit_turn({USER}, 1, :message_id::uuid, :session_id::uuid, "  # noqa: S608
    "jsonb_build_object('replies', jsonb_build_array(jsonb_build_object('text', :text::text)))) \\gset c_"
)
NEXT_PERSON = ["\\set person :client_id + :clients * :conversation", "\\set conversation :conversation + 1"]
ANY_PERSON = ["\\set person random(1, :users)", "\\set conversation :conversation + 1"]
ANY_ID = "concat_ws('-', :client_id::text, :conversation::text)"
THREADS = 2
CLIENTS_AT_A_RATE = 4
BATCH = 50


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
        for start in range(0, workload.messages, BATCH):
            numbers = range(start, min(start + BATCH, workload.messages))
            entries = [
                {"sender": str(number % workload.users), "external_id": f"'{number}'", "text": "message"}
                for number in numbers
            ]
            stack.rows(
                "SELECT accept(%s, (SELECT jsonb_agg(e || jsonb_build_object('user_id', md5(e ->> 'sender')::uuid))"
                " FROM jsonb_array_elements(%s) AS e), 1000)",
                CHANNEL,
                Jsonb(entries),
            )

    def commands(self, stack: Stack, workload: Workload, size: int) -> list[list[str]]:
        """Start one pgbench; it ends by itself."""
        script = stack.folder / "conversation.sql"
        script.write_text("\n".join(self._conversation(workload.messages // workload.users)) + "\n")
        transactions = ["-t", str(ceil(workload.users / size)), "-D", f"users={workload.users}"]
        return [command(stack, script, size, *transactions)]

    def _conversation(self, messages: int) -> list[str]:
        lines = [*NEXT_PERSON, "\\if :person < :users"]
        for number in range(messages):
            if self.accepts:
                lines.append(ACCEPT.format(id=f"'{number}'"))
            lines += [BEGIN.format(hint=":session_id::uuid" if number else "NULL"), COMMIT]
        return [*lines, "\\endif"]


def at_a_rate(stack: Stack, users: int, rate: int, seconds: int, log_prefix: Path, *, turns: bool) -> list[str]:
    """Return the command of a run in which a random user writes `rate` times a second; its log holds each time."""
    script = stack.folder / "message.sql"
    lines = [*ANY_PERSON, ACCEPT.format(id=ANY_ID), *([BEGIN.format(hint="NULL"), COMMIT] if turns else [])]
    script.write_text("\n".join(lines) + "\n")
    options = ["-D", f"users={users}", "-T", str(seconds), "-R", str(rate), "-l", f"--log-prefix={log_prefix}"]
    return command(stack, script, CLIENTS_AT_A_RATE, *options)


def command(stack: Stack, script: Path, clients: int, *options: str) -> list[str]:
    """Return the command of a run of a script, with prepared statements."""
    program = str(stack.postgres.psql.with_name("pgbench"))
    known = ["-D", f"clients={clients}", "-D", "conversation=0"]
    concurrency = ["-c", str(clients), "-j", str(min(THREADS, clients))]
    return [program, "-n", "-M", "prepared", *concurrency, *known, *options, "-f", str(script), stack.postgres.url]


TURNS = Pgbench("pgbench, begin + commit", accepts=False)
WHOLE_WAY = Pgbench("pgbench, accept + begin + commit", accepts=True)
