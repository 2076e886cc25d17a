"""What Redis forgot, missed or was told by strangers is put right from Postgres, within a round."""

import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from onelane import keys
from onelane.bootstrap import open_services
from onelane.model import Delivery
from onelane.processes.duties import ROUND_MAX_S, ROUND_S, Duties
from tests import bots
from tests.conftest import eventually
from tests.proxy import Proxy

REQUEUED_WITHIN_S = 5
MANY = 20_000


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"handler": "tests.bots:handle", "attempts_max": 2})


@pytest.fixture
def duties(services):
    return Duties(services.database, services.lanes, services.sessions, "a test")


def _states(services, user_id):
    return [
        row.state
        for row in services.database.rows(
            "SELECT state FROM messages WHERE user_id = %s AND direction = 'in' ORDER BY seq", (user_id,)
        )
    ]


def _in_order_of_commit(services, user_id):
    return [
        row.seq
        for row in services.database.rows(
            "SELECT seq FROM messages WHERE user_id = %s AND state = 'processed' ORDER BY processed_at", (user_id,)
        )
    ]


def _waiting(services):
    return services.database.row("SELECT coalesce(sum(waiting), 0)::int AS n FROM users").n


def _score(services, user_id):
    return services.lanes.scores([user_id])[0]


def _failed(services, user_id):
    name = keys.queue_name(user_id)
    return FailedJobRegistry(name, connection=services.lanes.client, serializer=JSONSerializer)


# Redis forgets, or was away


def test_what_was_accepted_while_redis_was_away_is_answered_within_a_round(
    services, settings, run_worker, redis_server
):
    with Proxy(redis_server.url) as proxy, run_worker(settings):
        far = open_services(settings.model_copy(update={"redis_url": proxy.url}))
        with proxy.refusing():
            far.intake.accept("demo", [Delivery(sender="alice", external_id="1", text="hello")])
            accepted = time.monotonic()
            eventually(lambda: _waiting(services) == 0)
            assert time.monotonic() - accepted < ROUND_S + ROUND_MAX_S + 1
        far.close()


def test_flushall_with_messages_waiting_costs_none_and_no_order(services, settings, accept, run_worker):
    deep = [accept("deep", str(nr)) for nr in range(150)]
    for nr in range(20):
        accept(f"user {nr}")
        accept(f"user {nr}")
    services.lanes.client.flushall()
    with run_worker(settings):
        eventually(lambda: _waiting(services) == 0)
    assert _in_order_of_commit(services, deep[0].user_id) == list(range(1, 151))
    assert services.database.row("SELECT count(*) AS n FROM messages WHERE direction = 'out'").n == 190


def test_a_paused_user_stays_paused_over_flushall(services, settings, accept, run_worker, duties):
    user_id = accept("alice").user_id
    services.database.row("SELECT pause_user(%s)", (user_id,))
    services.lanes.client.flushall()
    assert duties.reconcile() == 1
    assert _score(services, user_id) == float("inf")
    services.lanes.client.flushall()
    with run_worker(settings):
        bob = accept("bob").user_id
        eventually(lambda: _states(services, bob) == ["processed"])
        eventually(lambda: _score(services, user_id) == float("inf"))
    assert _states(services, user_id) == ["received"]


def test_a_user_resumed_in_postgres_alone_is_unpaused_within_a_round(services, settings, accept, run_worker):
    user_id = accept("alice").user_id
    services.database.row("SELECT pause_user(%s)", (user_id,))
    services.lanes.pause(user_id)
    with run_worker(settings):
        services.database.row("SELECT resume_user(%s)", (user_id,))
        eventually(lambda: _states(services, user_id) == ["processed"], within_s=ROUND_S + ROUND_MAX_S + 2)


def test_lanes_without_work_are_dropped(services, settings, run_worker):
    for _ in range(30):
        services.lanes.make_due(uuid4())
    services.lanes.client.zadd("lanes", {"nobody's lane": 0, "-" * 36: 0})
    with run_worker(settings):
        eventually(lambda: not services.lanes.client.exists("lanes"))
    assert not services.lanes.client.keys("lock:*")


def test_twenty_thousand_waiting_users_are_put_back_in_bounded_rounds(services, duties):
    services.database.rows(
        "WITH u AS (INSERT INTO users (id, channel, sender, last_seq, waiting)"
        "           SELECT gen_random_uuid(), 'demo', 'user ' || nr, 1, 1 FROM generate_series(1, %s) nr RETURNING id)"
        " INSERT INTO messages (user_id, direction, seq, turn_seq, state, channel, accepted_at)"
        " SELECT id, 'in', 1, 1, 'received', 'demo', clock_timestamp() FROM u",
        (MANY,),
    )
    rounds, enqueued = 0, 0
    while enqueued < MANY:
        began = time.monotonic()
        enqueued += duties.reconcile()
        assert time.monotonic() - began < ROUND_MAX_S + 2, "a round without a bound"
        rounds += 1
        assert rounds < 60
    assert services.lanes.client.zcard("lanes") == MANY
    assert duties.reconcile() == 0


# RQ's own tools


def _requeue_by_registry(services, _settings, message):
    _failed(services, message.user_id).requeue(str(message.message_id))


def _requeue_by_command(_services, settings, message):
    rq = [str(Path(sys.executable).with_name("rq")), "requeue", "--url", settings.redis_url]
    lane = ["--queue", keys.queue_name(message.user_id), "--serializer", "rq.serializers.JSONSerializer"]
    subprocess.run([*rq, *lane, str(message.message_id)], check=True, capture_output=True, timeout=30)


@pytest.mark.parametrize("requeue", [_requeue_by_registry, _requeue_by_command])
def test_a_dead_message_requeued_with_rqs_tools_is_answered_within_five_seconds(
    services, settings, accept, run_worker, monkeypatch, requeue
):
    with run_worker(settings):
        message = accept("alice", "raise")
        eventually(lambda: _states(services, message.user_id) == ["dead"])
        eventually(lambda: str(message.message_id) in _failed(services, message.user_id))
        monkeypatch.setitem(bots.ACTS, "raise", lambda *_: "well again")
        requeue(services, settings, message)
        eventually(lambda: _states(services, message.user_id) == ["processed"], within_s=REQUEUED_WITHIN_S)
        eventually(lambda: not services.lanes.client.exists("rq:queues", "lanes"))


def test_a_requeued_message_runs_next_in_its_users_order(services, settings, accept, run_worker, monkeypatch, tmp_path):
    gate = tmp_path / "gate"
    with run_worker(settings):
        dead = accept("alice", "raise")
        accept("alice", f"wait {gate}")
        accept("alice", "three")
        eventually(lambda: _states(services, dead.user_id)[0] == "dead")
        eventually(lambda: str(dead.message_id) in _failed(services, dead.user_id))
        monkeypatch.setitem(bots.ACTS, "raise", lambda *_: "well again")
        _requeue_by_registry(services, settings, dead)
        eventually(lambda: _states(services, dead.user_id)[0] == "received")
        gate.touch()
        eventually(lambda: _waiting(services) == 0)
    assert _in_order_of_commit(services, dead.user_id) == [2, 1, 3]


def test_a_requeued_poison_message_is_dead_again_once(services, settings, accept, run_worker, duties):
    with run_worker(settings):
        message = accept("alice", "raise")
        eventually(lambda: str(message.message_id) in _failed(services, message.user_id))
        _requeue_by_registry(services, settings, message)
        eventually(lambda: not services.lanes.client.exists(keys.queue(message.user_id)))
        eventually(lambda: str(message.message_id) in _failed(services, message.user_id))
        eventually(lambda: not services.lanes.client.exists("lanes"))
        assert duties.redrive_requeued() == 0
    assert _states(services, message.user_id) == ["dead"]
    assert len(_failed(services, message.user_id)) == 1
    assert services.database.row("SELECT attempts FROM messages WHERE direction = 'in'").attempts == 2


def test_a_requeued_message_at_the_end_of_a_long_backlog_is_found(services, accept):
    message = accept("alice")
    [lease] = services.lanes.lease("w", 0, 1, 60).leases
    services.lanes.bury(lease, message.message_id, "Traceback: …")
    services.lanes.client.rpush(keys.queue(message.user_id), *[str(uuid4()) for _ in range(3_000)])
    assert services.lanes.requeued([message.user_id]) == []
    _failed(services, message.user_id).requeue(str(message.message_id))
    assert services.lanes.requeued([message.user_id]) == [(message.user_id, str(message.message_id))]


def test_a_requeue_that_redis_cut_short_is_finished_in_the_next_round(services, accept, duties):
    message = accept("alice")
    [lease] = services.lanes.lease("w", 0, 1, 60).leases
    services.database.rows("UPDATE messages SET state = 'received' WHERE id = %s", (message.message_id,))
    services.lanes.bury(lease, message.message_id, "Traceback: …")
    services.lanes.finish(lease)
    _failed(services, message.user_id).requeue(str(message.message_id))
    assert _score(services, message.user_id) is None
    assert duties.redrive_requeued() == 1  # Postgres had it waiting already
    assert _score(services, message.user_id) is not None
    assert services.lanes.jobs(message.user_id) == [str(message.message_id)]
