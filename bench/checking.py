"""Judges a run by its rows in Postgres, with the rules of the chaos harness: nothing lost, doubled or out of order.

Each rule is a query that counts what breaks it, beside the temporary table `sent`, which has what was accepted.
`processed_at` is set under the user's row lock, so for one user its order is the order of commits.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from psycopg.types.json import Jsonb

from bench.errors import BenchError
from bench.measuring import OURS
from bench.stack import Stack
from onelane.deliveries import Delivery

RATE = """
SELECT count(*) AS processed,
       extract(epoch FROM max(processed_at) - min(processed_at))::float AS seconds
  FROM messages WHERE direction = 'in' AND state = 'processed'
"""
OUT_OF_ORDER = """
SELECT count(DISTINCT user_id)
  FROM (SELECT user_id, processed_at < lag(processed_at) OVER (PARTITION BY user_id ORDER BY seq) AS is_early
          FROM messages WHERE direction = 'in' AND state = 'processed') AS commits
 WHERE is_early
"""
UNANSWERED = """
SELECT count(*)
  FROM messages message
 WHERE direction = 'in' AND state = 'processed'
   AND (SELECT array_agg(reply.text) FROM messages reply
         WHERE reply.user_id = message.user_id AND reply.turn_seq = message.turn_seq AND reply.ordinal > 0)
       IS DISTINCT FROM ARRAY[message.text]
"""
STORED = """
CREATE OR REPLACE TEMPORARY VIEW stored AS
SELECT user_id, seq, external_id, text FROM messages WHERE direction = 'in' AND state IN ('processed', 'dead')
 UNION ALL SELECT user_id, seq, external_id, text FROM inbox
"""

AT_ANY_TIME: Final[Mapping[str, str]] = {
    "sent, and not stored as sent": """
        SELECT count(*) FROM sent LEFT JOIN stored USING (external_id) LEFT JOIN users ON users.id = stored.user_id
         WHERE (stored.text, users.sender) IS DISTINCT FROM (sent.text, sent.sender)""",
    "stored, and never sent": """
        SELECT count(*) FROM stored LEFT JOIN sent USING (external_id) WHERE sent.external_id IS NULL""",
    "stored twice": "SELECT count(*) - count(DISTINCT external_id) FROM stored",
    "users whose numbers have a gap": """
        SELECT count(*)
          FROM (SELECT user_id, count(*) AS rows, count(DISTINCT seq) AS numbers, min(seq), max(seq)
                  FROM stored GROUP BY user_id) AS numbered
          JOIN users ON users.id = numbered.user_id
         WHERE (rows, numbers, min, max) IS DISTINCT FROM (last_seq, last_seq, 1, last_seq)""",
    "numbered in another order than sent": """
        SELECT count(*) FROM sent JOIN stored USING (external_id) WHERE stored.seq <> sent.place""",
    "users committed out of order": OUT_OF_ORDER,
    "without exactly its one reply": UNANSWERED,
    "replies to nothing": """
        SELECT count(*) FROM messages reply
         WHERE direction = 'out' AND NOT EXISTS (
             SELECT FROM messages message
              WHERE message.user_id = reply.user_id AND message.turn_seq = reply.turn_seq AND message.ordinal = 0
                AND message.state = 'processed')""",
    "users with several sessions": """
        SELECT count(*) FROM (SELECT FROM conversation_sessions GROUP BY user_id HAVING count(*) > 1) AS several""",
    "in another user's session": """
        SELECT count(*) FROM messages JOIN conversation_sessions session ON session.id = messages.session_id
         WHERE session.user_id <> messages.user_id""",
    "dead": "SELECT count(*) FROM messages WHERE state = 'dead'",
    "users whose count of what waits is wrong": """
        SELECT count(*) FROM users
         WHERE waiting <> (SELECT count(*) FROM inbox WHERE inbox.user_id = users.id)""",
}
"""What holds at any moment, also in the middle of the work."""
AT_THE_END: Final[Mapping[str, str]] = {**AT_ANY_TIME, "still waiting": "SELECT count(*) FROM inbox"}


class Sent(NamedTuple):
    """One message that was accepted. `place` is its number among its sender's, if they were sent one by one."""

    external_id: str
    sender: str
    text: str
    place: int | None = None

    @property
    def delivery(self) -> Delivery:
        """The message as a channel's adapter understands it."""
        return Delivery(senders=(self.sender,), external_id=self.external_id, text=self.text)


def judge(stack: Stack, whose: str, sent: Sequence[Sent], rules: Mapping[str, str] = AT_THE_END) -> dict[str, int]:
    """Return how often each broken rule is broken. Raise BenchError if it is ours."""
    verdict = broken(stack, sent, rules)
    if verdict and whose.startswith(OURS):
        raise BenchError(f"{whose} broke its promises: " + ", ".join(f"{rule}: {n}" for rule, n in verdict.items()))
    return verdict


def broken(stack: Stack, sent: Sequence[Sent], rules: Mapping[str, str] = AT_THE_END) -> dict[str, int]:
    """Ask all rules; an empty answer means that all is as it should be."""
    stack.do(STORED)
    stack.do("DROP TABLE IF EXISTS sent")
    stack.do("CREATE TEMPORARY TABLE sent (external_id text PRIMARY KEY, sender text, text text, place bigint)")
    rows = Jsonb([one._asdict() for one in sent])
    stack.do("INSERT INTO sent SELECT * FROM jsonb_populate_recordset(NULL::sent, %s)", rows)
    stack.do("ANALYZE")
    return {rule: offenders for rule, query in rules.items() if (offenders := stack.value(query))}


def messages_per_s(stack: Stack) -> float:
    """Return the rate from the first commit to the last; the start of processes is not part of it."""
    [(processed, seconds)] = stack.rows(RATE)
    return (processed - 1) / seconds if seconds else 0.0


def processed(stack: Stack) -> int:
    """Count the messages that are done."""
    count: int = stack.value("SELECT count(*) FROM messages WHERE direction = 'in' AND state = 'processed'")
    return count


def lost(stack: Stack, expected: int) -> int:
    """Count the messages that do not have exactly the one reply that the echo bot gives."""
    unanswered: int = stack.value(UNANSWERED)
    return expected - processed(stack) + unanswered


def users_out_of_order(stack: Stack) -> int:
    """Count the users of whom a later message was committed before an earlier one."""
    count: int = stack.value(OUT_OF_ORDER)
    return count
