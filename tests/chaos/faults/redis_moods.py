"""Faults in which Redis runs and answers, and yet cannot be used, or not as before; connections stay."""

import signal

import redis

from tests.chaos.faults.strike import Steps, Strike

NOBODY = ("127.0.0.1", "1")
"""A primary that is not there: its replica takes no writes, and reads what it has."""
LEFT_OUT = (
    ("-eval", "-evalsha"),
    ("-@scripting",),
    ("-@write",),
    ("resetkeys",),
    ("resetkeys", "~rq:*"),
)
"""What a user of Redis may be forbidden: our scripts, writing, all keys, or all but RQ's."""
EVERYTHING = ("+@all", "allkeys")
EVICTED = (0.05, 0.3)
"""How much of what Redis holds is more than it may hold."""


def full(strike: Strike) -> Steps:
    """Let Redis be full: whatever allocates is refused. A worker may have to start in that, as one is killed then."""
    with strike.redis() as client:
        client.config_set("maxmemory", 1)
        if strike.target.endswith("/at-start"):
            strike.struck = strike.dice.sample(workers := strike.workers(), k=min(1, len(workers)))
            strike.send(signal.SIGKILL)
        try:
            yield from strike.lasting()
        finally:
            client.config_set("maxmemory", 0)


def refusing(strike: Strike) -> Steps:
    """Take away the right to run our scripts, to write, or to touch our keys."""
    with strike.redis() as client:
        client.execute_command("ACL SETUSER", "default", *strike.dice.choice(LEFT_OUT))
        try:
            yield from strike.lasting()
        finally:
            client.execute_command("ACL SETUSER", "default", *EVERYTHING)


def evicting(strike: Strike) -> Steps:
    """Let Redis hold a little less than it holds, and throw away whatever was not used for the longest time."""
    with strike.redis() as client:
        evicted = _evicted(client)
        memory = client.info("memory")
        too_much = int(memory["used_memory_dataset"] * strike.dice.uniform(*EVICTED))
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", memory["used_memory"] - too_much)
        try:
            yield from strike.lasting()
        finally:
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", "noeviction")
            strike.is_missed = _evicted(client) == evicted


def read_only(strike: Strike) -> Steps:
    """Be a replica for a while, as after a fail-over to another."""
    with strike.redis() as client:
        client.replicaof(*NOBODY)
        try:
            yield from strike.lasting()
        finally:
            client.replicaof("NO", "ONE")


def _evicted(client: redis.Redis) -> int:
    return int(client.info("stats")["evicted_keys"])
