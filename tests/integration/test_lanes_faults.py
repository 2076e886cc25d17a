"""Redis full, replies lost, workers idle: the lanes go on, and nobody polls."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator
from functools import partial
from statistics import median
from threading import Timer
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from redis.client import Monitor
from rq.suspension import resume, suspend

from onelane.bootstrap import Services, open_services
from onelane.config import Settings
from onelane.deliveries import Accepted, Delivery
from onelane.dev.embedded import EmbeddedRedis
from onelane.errors import LanesUnavailable
from onelane.postgres.connection import Row
from onelane.processes.dispatcher import IDLE_WAIT_MAX_S
from tests.conftest import DEADLINE_S, Accept, RunWorker, deliver, eventually, slow_after
from tests.proxy import Proxy
from tests.rows import Rows

Far = tuple[Services, Settings]

USERS = 6
POISON = "raise"
LONG = "sleep 0.8"
WORDS = ["hello", LONG, "hello", POISON, "hello", "raise-until 1", "hello"]
"""Something for each script: a long turn where it is to be renewed, failures that park, one that buries."""

IDLE_COMMANDS_MAX = 3
"""A second."""
IDLE_STATEMENTS_MAX = 4
IDLE_S = 6
LAST_OF_THE_FIRST_ROUND = "forget_files"
"""A worker does every duty when it begins; idle it is after that."""
OVER = "the window is over"
numbers = itertools.count()


@pytest.fixture
def proxy(redis_server: EmbeddedRedis) -> Iterator[Proxy]:
    with Proxy(redis_server.url) as proxy:
        yield proxy


@pytest.fixture
def through_proxy(settings: Settings, proxy: Proxy, services: Services) -> Iterator[Far]:
    """Services and settings whose Redis is behind the proxy; all scripts are known to the server."""
    ours = {"handler": "tests.bots:handle", "attempts_max": 2, "quantum_turns": 2, "lock_ttl_s": 6}
    settings = settings.model_copy(update={"redis_url": proxy.url, **ours})
    for text in services.lanes.scripts._texts.values():
        services.lanes.client.script_load(text)
    far = open_services(settings)
    yield far, settings
    far.close()


def _digest(services: Services, script: str) -> bytes:
    return services.lanes.scripts._digests[script].encode()


def _accept(services: Services, sender: str, text: str) -> Accepted:
    delivery = Delivery(senders=(sender,), external_id=f"m{next(numbers)}", text=text)
    return deliver(services, [delivery])[0]


# lost replies


@pytest.mark.parametrize("script", slow_after(4, ["enqueue", "lease", "renew", "finish", "park", "bury", "due"]))
@pytest.mark.parametrize("what", slow_after(1, ["drop_reply", "drop_request"]))
def test_one_lost_reply_or_request_costs_no_message_and_no_leases_life(
    rows: Rows, services: Services, through_proxy: Far, proxy: Proxy, run_worker: RunWorker, script: str, what: str
) -> None:
    far, settings = through_proxy
    is_asked_once = script in {"renew", "bury"}  # all who die at once are buried at once
    fault = getattr(proxy, what)(_digest(services, script), nth=1 if is_asked_once else 2)
    with run_worker(settings):
        for text in WORDS:
            for nr in range(USERS):
                _accept(far, f"user {nr}", "hello" if text == LONG and script != "renew" else text)
        user_id = rows.user_of("demo", "user 0")
        far.lanes.make_due(user_id)
        far.lanes.make_due(user_id)
        assert fault.struck.wait(DEADLINE_S)
        eventually(lambda: rows.waiting() == 0)
    accepted = rows.accepted()
    replies = Counter((reply.user_id, reply.turn_seq) for reply in rows.answers())
    assert [(row.state, replies[row.user_id, row.seq]) for row in accepted] == [
        ("dead", 0) if word == POISON else ("processed", 1) for word in WORDS
    ] * USERS
    longest_s = _longest_stall_s(accepted)
    print(f"\n{what} {script}: longest gap between a user's turns {longest_s:.2f} s")  # noqa: T201 - for -s
    assert longest_s < settings.lock_ttl_s


def _longest_stall_s(accepted: list[Row]) -> float:
    """Find the longest time between two commits of one user; they come in the order of seq."""
    gaps = []
    for before, after in itertools.pairwise(accepted):
        if before.user_id == after.user_id:
            assert before.processed_at <= after.processed_at, "out of order"
            gaps.append((after.processed_at - before.processed_at).total_seconds())
    return max(gaps)


def test_redis_behind_a_black_hole_is_left_after_its_time_and_found_again(
    rows: Rows, services: Services, through_proxy: Far, proxy: Proxy, run_worker: RunWorker
) -> None:
    far, settings = through_proxy
    with run_worker(settings):
        _accept(far, "alice", "one")
        eventually(lambda: rows.waiting() == 0)
        with proxy.black_hole(), pytest.raises(LanesUnavailable):
            far.lanes.probe()
        _accept(services, "alice", "two")
        eventually(lambda: rows.waiting() == 0)


# wake-ups


def test_a_worker_starts_a_turn_within_milliseconds(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    with run_worker(settings):
        for nr in range(50):
            accept(f"user {nr}")
            eventually(partial(_have_been_answered, rows, nr + 1), every_s=0.002)
    waits_ms = rows.waits_ms()
    print(f"\naccepted to committed: median {median(waits_ms):.1f} ms, longest {max(waits_ms):.1f} ms")  # noqa: T201
    assert median(waits_ms) < 1_000 * IDLE_WAIT_MAX_S / 4  # without wake-ups it is nearly all of that


def _have_been_answered(rows: Rows, messages: int) -> bool:
    return rows.answered() == messages


@pytest.mark.slow
def test_an_idle_worker_asks_little(
    rows: Rows,
    services: Services,
    settings: Settings,
    accept: Accept,
    run_worker: RunWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    statements: list[str] = []
    execute = psycopg.Cursor.execute

    def counted(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        statements.append(str(query))
        return execute(cursor, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    with run_worker(settings):
        accept("alice")
        eventually(lambda: rows.waiting() == 0)
        eventually(lambda: any(LAST_OF_THE_FIRST_ROUND in statement for statement in statements))
        statements.clear()
        # Not what clients of other tests do who look for their Redis: theirs are new connections.
        client = services.lanes.client
        connected = {client_of["addr"] for client_of in client.client_list()}
        with client.monitor() as monitor:
            over = Timer(IDLE_S, lambda: client.echo(OVER))
            over.start()
            commands = _commands_until(OVER, monitor, of=connected)
            over.join()
        asked = [*statements]
    print(commands.most_common(), asked)  # noqa: T201 - for -s
    assert commands.total() <= IDLE_COMMANDS_MAX * (IDLE_S + 2)  # a tick of each may be the window's edge
    assert len(asked) <= IDLE_STATEMENTS_MAX


def _commands_until(mark: str, monitor: Monitor, of: Collection[str]) -> Counter[str]:
    """Count what the clients at these addresses send; not what scripts call."""
    commands: Counter[str] = Counter()
    while mark not in (command := monitor.next_command())["command"]:
        if command["client_type"] != "lua" and f"{command['client_address']}:{command['client_port']}" in of:
            commands[command["command"].split()[0].upper()] += 1
    return commands


@pytest.mark.slow
def test_a_suspended_worker_leaves_the_wake_up_to_others(
    rows: Rows, services: Services, settings: Settings, accept: Accept, run_worker: RunWorker
) -> None:
    client = services.lanes.client
    suspend(client)
    with run_worker(settings):
        accept("alice")
        [worker] = eventually(lambda: client.smembers("rq:workers"))
        eventually(lambda: client.hget(worker, "state") == b"suspended")
        assert client.llen("wake:in") == 1
        resume(client)
        eventually(lambda: rows.waiting() == 0)


def test_a_thousand_lanes_leave_sixty_four_wake_ups(services: Services) -> None:
    services.lanes.enqueue_many([(uuid4(), uuid4()) for _ in range(1_000)])
    assert services.lanes.client.llen("wake:in") == 64
    services.lanes.pass_wake_on()
    assert services.lanes.client.llen("wake:in") == 64
