"""Checks a drain by its rows in Postgres: how fast it was, whether it is complete, and in which order it ran.

`processed_at` is set under the user's row lock, so for one user its order is the order of commits.
"""

from bench.stack import Stack

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
RIGHT = """
SELECT count(*)
  FROM messages message
 WHERE direction = 'in' AND state = 'processed'
   AND (SELECT array_agg(reply.text) FROM messages reply
         WHERE reply.user_id = message.user_id AND reply.turn_seq = message.turn_seq AND reply.ordinal > 0)
       = ARRAY[message.text]
"""


def messages_per_s(stack: Stack) -> float:
    """Return the rate from the first commit to the last; the start of processes is not part of it."""
    [(processed, seconds)] = stack.rows(RATE)
    return (processed - 1) / seconds if seconds else 0.0


def processed(stack: Stack) -> int:
    """Count the messages that are done."""
    count: int = stack.value("SELECT count(*) FROM messages WHERE state = 'processed'")
    return count


def lost(stack: Stack, expected: int) -> int:
    """Count the messages that do not have exactly the one reply that the echo bot gives."""
    right: int = stack.value(RIGHT)
    return expected - right


def users_out_of_order(stack: Stack) -> int:
    """Count the users of whom a later message was committed before an earlier one."""
    count: int = stack.value(OUT_OF_ORDER)
    return count
