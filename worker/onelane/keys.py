"""Every Redis key. Python makes its keys here, the scripts in `lanes/lua/prelude.lua`; a test compares them.

| key                   | type   | owner                  | life                                        |
|-----------------------|--------|------------------------|---------------------------------------------|
| lanes:<kind>          | zset   | the scripts in `lua/`  | a member while its user has work            |
| wake:<kind>           | list   | the scripts            | at most 64 tokens                           |
| instance              | hash   | the scripts            | for ever: whose it is, and the lanes' clock  |
| unsure                | hash   | the scripts            | until a worker calls: lanes, by their scores|
| fence                 | string | lease.lua              | for ever; reseeded from the clock when lost |
| lock:<kind>:<id>      | hash   | the scripts            | the lease, and a day if nobody releases it  |
| session:user:<id>     | string | finish.lua             | until the policy could end the session      |
| pace:<kind>:<id>      | string | finish.lua, park.lua   | the next turn's time: a minute at most      |
| collect:<id>          | string | enqueue.lua            | the longest wait: since when, and its end   |
| newer:<worker>        | hash   | enqueue, newer.lua     | 1 min: messages that may throw turns away   |
| buried:<kind>         | zset   | bury.lua               | the newest 500 dead: `user message`         |
| lease:<kind>:<worker> | hash   | lease.lua              | 60 s: the answer to the last call           |
| beat:<worker>         | hash   | renew.lua              | a day, as its locks: when it was heard last |
| duty:<name>           | string | `duties.py`            | one duty round: which worker does it        |
| reconciled:<kind>     | string | lap.lua                | 15 to 60 s: a lap over all who wait is done |
| cursor:<kind>         | string | lap.lua                | a lap: where it goes on, and who moved it there
| numbers               | hash   | count.lua              | for ever: what all processes have counted   |
| minutes               | list   | count.lua              | for ever: what some were, an hour by minutes|
| counted:<process>     | string | count.lua              | 10 min: the last batch that was added       |
| rq:queue:user:<id>    | list   | enqueue.lua, finish.lua| while jobs wait                             |
| rq:job:<message id>   | hash   | enqueue.lua, finish.lua| while the message waits, or is dead         |
| rq:results:<id>       | stream | bury.lua               | 30 days at most: a dead message's traceback |
| rq:failed:user:<id>   | zset   | bury.lua               | the same: RQ's FailedJobRegistry of the lane|
| rq:queues             | set    | the scripts            | keys of lanes with jobs or failures         |
| rq:worker:<name>      | hash   | RQ, register.lua       | the worker's heartbeat                      |
| heartbeats            | zset   | register.lua           | 1 h: when workers were heard, by Redis      |
| rq:workers            | set    | `registration.py`, RQ  | the workers that are registered             |
| rq:workers:user:<id>  | set    | register.lua           | 1 min: the worker that is on the lane       |
| rq:suspended          | string | `rq suspend`           | until `rq resume`                           |
| ops:tried:<who>       | string | `ops/attempts.py`      | 15 min: log-in attempts of one address      |
| ops:tried             | string | `ops/attempts.py`      | 15 min: log-in attempts of all addresses    |
| ops:slowed:<who>      | string | `ops/attempts.py`      | 15 min: since when the address waits        |
| ops:forwarded         | string | `ops/login.py`         | a week: a proxy came whose word is not taken|
| unsigned:<channel>    | string | `inbox/unsigned.py`    | a day: why its newest webhook was refused   |
| ops:known:<who>       | string | `ops/attempts.py`      | 30 days: this address has logged in         |

In Redis REDIS_PREFIX stands in front of each: the client (`lanes/prefixed.py`) and the scripts put it there.
`<id>` is a user's id: a UUID, which does not reveal the sender. `<who>` is the digest of an address. Of RQ's other
registries the dashboard shows the number of jobs.
`<kind>` is the kind of lane: `in` for turns, `out` for replies. The RQ queue of a lane is `user:<id>` or `reply:<id>`,
and its jobs have the ids of messages or replies.
What somebody else has put under a key of a lane, in another type, is removed: it would stop the lane for ever.
"""

from typing import Final
from uuid import UUID

IN: Final = "in"
"""The kind of the lanes of turns."""
OUT: Final = "out"
"""The kind of the lanes of replies."""
KINDS: Final = (IN, OUT)
INSTANCE: Final = "instance"
UNSURE: Final = "unsure"
FENCE: Final = "fence"
NUMBERS: Final = "numbers"
MINUTES: Final = "minutes"
ATTEMPTS_ALL: Final = "ops:tried"
FORWARDED: Final = "ops:forwarded"
HEARTBEATS: Final = "heartbeats"
RQ_QUEUES: Final = "rq:queues"
RQ_WORKERS: Final = "rq:workers"
RQ_QUEUE_PREFIX: Final = "rq:queue:"
RQ_WORKER_PREFIX: Final = "rq:worker:"
RQ_REGISTRY_PREFIXES: Final = {
    "deferred": "rq:deferred:",
    "scheduled": "rq:scheduled:",
    "started": "rq:wip:",
    "finished": "rq:finished:",
    "failed": "rq:failed:",
    "canceled": "rq:canceled:",
}
QUEUE_PREFIXES: Final = {IN: "user:", OUT: "reply:"}
"""How the names of a kind's RQ queues begin."""


def lanes(kind: str = IN) -> str:
    """Key of the sorted set of a kind's lanes."""
    return f"lanes:{kind}"


def wake(kind: str = IN) -> str:
    """Key of the list of tokens on which idle workers wait."""
    return f"wake:{kind}"


def buried(kind: str = IN) -> str:
    """Key of the sorted set of the dead messages whose jobs Redis keeps, by the time of their burial."""
    return f"buried:{kind}"


def reconciled(kind: str = IN) -> str:
    """Key that exists while the last lap over all waiting users of a kind is recent."""
    return f"reconciled:{kind}"


def reconcile_cursor(kind: str = IN) -> str:
    """Key of the user after whom a kind's lap goes on."""
    return f"cursor:{kind}"


def unsigned(channel: str) -> str:
    """Key of the newest refusal of a webhook that was not signed as its channel must be."""
    return f"unsigned:{channel}"


def queue_name(user_id: UUID | str, kind: str = IN) -> str:
    """Return the name of the user's RQ queue."""
    return f"{QUEUE_PREFIXES[kind]}{user_id}"


def queue(user_id: UUID | str, kind: str = IN) -> str:
    """Key of the list behind the user's RQ queue."""
    return f"{RQ_QUEUE_PREFIX}{queue_name(user_id, kind)}"


def failed(user_id: UUID | str, kind: str = IN) -> str:
    """Key of the lane's FailedJobRegistry."""
    return f"{RQ_REGISTRY_PREFIXES['failed']}{queue_name(user_id, kind)}"


def job(message_id: UUID | str) -> str:
    """Key of the RQ job of a message."""
    return f"rq:job:{message_id}"


def results(job_id: UUID | str) -> str:
    """Key of the results of a job, its traceback among them."""
    return f"rq:results:{job_id}"


def lock(user_id: UUID | str, kind: str = IN) -> str:
    """Key of the user's lock."""
    return f"lock:{kind}:{user_id}"


def session(user_id: UUID | str) -> str:
    """Key of the user's cached session id."""
    return f"session:user:{user_id}"


def collect(user_id: UUID | str) -> str:
    """Key that holds since when the user's lane waits for more of him, and until when."""
    return f"collect:{user_id}"


def duty(name: str) -> str:
    """Key that holds which worker does a periodic duty this round."""
    return f"duty:{name}"


def worker(name: str) -> str:
    """Key of what RQ and we know of a worker."""
    return f"{RQ_WORKER_PREFIX}{name}"


def beat(worker_name: str) -> str:
    """Key of when a worker's helper was heard."""
    return f"beat:{worker_name}"


def newer(worker_name: str) -> str:
    """Key of what has come for users whose turns a worker runs."""
    return f"newer:{worker_name}"


def attempts(address_digest: str) -> str:
    """Key of the log-in attempts of one address."""
    return f"{ATTEMPTS_ALL}:{address_digest}"


def slowed(address_digest: str) -> str:
    """Key of since when an address waits for its next attempt to log in."""
    return f"ops:slowed:{address_digest}"


def known_address(address_digest: str) -> str:
    """Key that exists when somebody has logged in from an address."""
    return f"ops:known:{address_digest}"
