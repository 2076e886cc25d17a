"""FLUSHALL: when everybody who waits has a lane again, after Redis has forgotten all of them."""

import time
from collections.abc import Callable
from functools import partial

from bench import checking
from bench.checking import Sent
from bench.measuring import OURS, Figures, Rounds, alternate
from bench.peers.onelane import Onelane
from bench.plan import Plan
from bench.result import Goal, Result
from bench.stack import CHANNEL, Stack, fresh
from bench.workload import Workload
from onelane import keys

NAME = "flushall"
TITLE = "FLUSHALL: until the last waiting user has a lane again, while turns go on"
COLUMNS = ["workers", "waiting users", "seconds", "lanes a second", "worked off meanwhile"]
SIZES = (1, 2, 4)
AFTER_MAX_S = 15.0
START_S = 30.0
PATIENCE_S = 240.0
WAITING = """
WITH made AS (
    INSERT INTO users (channel, sender, last_seq, waiting, last_accepted_at)
    SELECT %s, n::text, 1, 1, clock_timestamp() FROM generate_series(1, %s::integer) n RETURNING id, sender)
INSERT INTO inbox (user_id, seq, id, channel, external_id, text, accepted_at)
SELECT id, 1, new_id(), %s, sender, 'message', clock_timestamp() FROM made RETURNING 1
"""
NOTES = ["Each user waits with one message. The workers work off what they can meanwhile, which takes most of the CPU."]


def measure(plan: Plan) -> Result:
    """Let Redis forget, with one worker and with more."""
    users = plan.size(200_000, 3_000)
    runs: dict[str, Callable[[], Figures]] = {
        str(workers): partial(_run, workers, users) for workers in plan.size(SIZES, SIZES[:1])
    }
    rounds = alternate(plan, runs)
    goals = [
        Goal.at_most(f"the last lane is back, with {workers}", AFTER_MAX_S, rounds.values(workers, "after_s"), " s")
        for workers in rounds.found
    ]
    return Result.of(plan, NAME, TITLE, rounds, columns=COLUMNS, row=_row, goals=goals, notes=NOTES)


def _run(workers: int, users: int) -> Figures:
    with fresh() as stack:
        [command] = Onelane().commands(stack, Workload(users, users), 1)
        for nr in range(workers):
            stack.start(f"worker-{nr}", command)
        stack.wait_for(lambda: stack.redis.scard("rq:workers") >= workers, "the workers' start", START_S)
        stack.rows(WAITING, CHANNEL, users, CHANNEL)
        stack.redis.flushall()
        began = time.monotonic()
        stack.wait_for(lambda: stack.redis.exists(keys.reconciled()), "the end of the lap", PATIENCE_S)
        stack.wait_for(lambda: _have_lanes(stack) >= users, "the last lanes", PATIENCE_S)
        after_s = time.monotonic() - began
        figures = {"users": users, "after_s": round(after_s, 2), "processed": checking.processed(stack)}
        sent = [Sent(f"{user}", f"{user}", "message", 1) for user in range(1, users + 1)]
        return {**figures, "verdict": checking.judge(stack, OURS, sent, checking.AT_ANY_TIME)}


def _have_lanes(stack: Stack) -> int:
    """Count who is done, and then who has a lane: whoever is done meanwhile is counted next time."""
    done = checking.processed(stack)
    return done + int(stack.redis.zcard(keys.lanes()))


def _row(rounds: Rounds, name: str) -> list[str]:
    users, after_s = rounds.found[name][0]["users"], rounds.median(name, "after_s")
    worked_off = rounds.median(name, "processed")
    return [name, f"{users:,}", f"{after_s:.1f}", f"{users / after_s:,.0f}", f"{worked_off:,.0f}"]
