"""The scripts against a model of them, on a real Redis; and the model against scripts with bugs in them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from onelane.dev.embedded import EmbeddedRedis
from onelane.lanes.scripts import SCRIPTS, connect
from tests.conftest import examples_of, slow_after
from tests.lane_model import TTL_MS
from tests.lane_rules import LanesMachine

PATIENT = settings(stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def client(redis_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    client = connect(redis_server.url, timeout_s=5, wait_s=5, connections_max=2)
    yield client
    client.config_set("maxmemory", 0)
    client.close()


@pytest.mark.timeout(1_200)  # the nightly profile plays more
@pytest.mark.parametrize("examples", [30, pytest.param(None, marks=pytest.mark.slow)])
def test_the_scripts_do_what_the_model_does(client: redis.Redis, examples: int | None) -> None:
    machine = type("Machine", (LanesMachine,), {"client": client})
    run_state_machine_as_test(machine, settings=examples_of(examples, PATIENT))


def test_a_reply_that_is_lost_twice_is_of_the_same_call_whoever_has_its_leases(client: redis.Redis) -> None:
    play = type("Machine", (LanesMachine,), {"client": client})()
    play.begin()
    play.accept(who=0, again=False)
    play.lease(worker=0, slots=1, reply_is_lost=True, again=False)
    play.wait(TTL_MS)
    play.lease(worker=1, slots=1, reply_is_lost=False, again=False)
    play.accept(who=1, again=False)
    for is_lost in (True, False, False):
        play.lease(worker=0, slots=1, reply_is_lost=is_lost, again=False)
    assert [lease.user_id for lease in play.held[0]] == [play.people[1].id]


EXAMPLES_MAX = 5_000
"""For the rarest of these bugs. It draws numbers that our modules hold, too: every new one makes other examples."""
PLANTED = {
    "finish for whoever asks": ("finish", "if lock[1] ~= lane.token then return 'lost' end", ""),
    "enqueue over whatever score": ("prelude", "'NX', unpack(members)", "unpack(members)"),
    "lease whatever is held": ("lease", "if held > 0 then", "if false then"),
    "lease again for the same call": ("lease", "if last[1] == call then", "if false then"),
    "answer leases that others took over": (
        "lease",
        "holder(lease[1]) == lease[2]",
        "true",
    ),
    "a fence from nothing": ("lease", "digits(seed * 1000)", "'0'"),
    "answer leases that end": ("lease", "extend(lease[1], ends, ttl)", ""),
    "renew over a pause": ("prelude", "if not is_paused(user) then ours", "if true then ours"),
    "park over a pause": ("park", "if not is_paused(user) then", "if true then"),
    "forget a death that nobody has counted": ("park", "lock[3] and not lane.has_begun", "false"),
    "postpone what a worker died on": ("postpone", "redis.call('EXISTS', lock_key(user)) == 1", "false"),
    "postpone what waits already": ("postpone", " or tonumber(score) > now", ""),
    "make due what is leased": ("due", "if held > 0 then", "if false then"),
    "count a turn twice": ("prelude", "ours('HGET', lock_key(user), 'paced') or '0'", "'0'"),
    "let a turn that failed go free": ("park", "paced(user, now, lane.pace_ms, lane.runs)", "now"),
    "release an empty lane": ("finish", "if not has_work then", "if false then"),
    "forget what came in a full Redis": ("finish", " or lock[3]", ""),
    "pause a user who was resumed": ("finish", "(lane.pause and not is_resumed)", "lane.pause"),
    "leave a queue listed": ("finish", "finally('SREM', QUEUES, listed(user))", ""),
    "wait longer for a message that had come": ("enqueue", "not began or not jobs or", "not began or"),
    "wait again although it is over": ("enqueue", " or tonumber(score) <= now", ""),
    "wait for ever": ("enqueue", "math.min(began + wait.longest_ms, now + wait.quiet_ms)", "now + wait.quiet_ms"),
    "wait for more while a turn runs": ("prelude", "if KIND == 'in' and ends == score then", "if ends then"),
    "take a buried job for a waiting one": ("enqueue", "if is_buried(item.id) then", "if false then"),
}
FOUND_LATE = {"forget what came in a full Redis", "pause a user who was resumed", "park over a pause"}


@pytest.mark.timeout(900)  # it is found sooner or later
@pytest.mark.parametrize("bug", slow_after(4, PLANTED, FOUND_LATE))
def test_the_model_sees_a_planted_bug(client: redis.Redis, tmp_path: Path, bug: str) -> None:
    name, right, wrong = PLANTED[bug]
    shutil.copytree(SCRIPTS, tmp_path / "lua")
    script = tmp_path / "lua" / f"{name}.lua"
    text = script.read_text()
    assert text.count(right) == 1
    script.write_text(text.replace(right, wrong))
    machine = type("Machine", (LanesMachine,), {"client": client, "folder": tmp_path / "lua"})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            machine,
            settings=settings(
                PATIENT, max_examples=EXAMPLES_MAX, phases=[Phase.generate], derandomize=True, database=None
            ),
        )
