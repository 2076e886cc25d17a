"""How scripts are asked: what is an outage, and what is asked again."""

import re
from collections.abc import Callable

import fakeredis
import pytest
import redis

from onelane.errors import LanesDenied, LanesUnavailable
from onelane.lanes.scripts import SCRIPTS, Scripts

IN_SCRIPT = "Error running script (call to f_1): @user_script:1:"
"""How Redis 6.2 quotes an error of a command that a script called."""


@pytest.fixture
def scripts() -> Scripts:
    return Scripts(fakeredis.FakeRedis(), SCRIPTS)


def test_a_server_that_does_not_know_the_scripts_is_taught_them(scripts: Scripts) -> None:
    for _ in range(2):
        assert scripts.run_many([("pause", ["nobody"]), ("requeued", ["nobody"]), ("pause", ["nobody"])]) == [0, [], 0]
        scripts.client.script_flush()


@pytest.mark.parametrize(
    "text",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "Error running script (call to f_1): @user_script:9: -OOM command not allowed when used memory > 'maxmemory'.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "READONLY You can't write against a read only replica.",
        "BUSY Redis is busy running a script.",
        "STRANGE news of a later release",
        f"{IN_SCRIPT} @user_script: 1: -READONLY You can't write",
        "no words of ours",
    ],
)
def test_a_redis_that_refuses_is_an_outage(scripts: Scripts, text: str) -> None:
    with pytest.raises(LanesUnavailable):
        scripts.ask(_raising(redis.exceptions.ResponseError(text)))


@pytest.mark.parametrize(
    "text",
    [
        "NOPERM this user has no permissions to run the 'evalsha' command or its subcommand",
        "NOPERM ACL failure in script: User x has no permissions to run the 'set' command on @user_script:1.",
        f"{IN_SCRIPT} @user_script: 1: The user executing the script can't run this command or subcommand",
        f"{IN_SCRIPT} @user_script: 1: Lua script attempted to access a non local key in a cluster node",
        "MOVED 3999 10.0.0.1:6381",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "unknown command `ZRANGE`, with args beginning with: ",
        f"{IN_SCRIPT} @user_script: 1: Unknown Redis command called from Lua script",
    ],
)
def test_what_only_a_setting_mends_is_worded_as_such_and_names_no_address(scripts: Scripts, text: str) -> None:
    with pytest.raises(LanesDenied, match="REDIS_URL") as raised:
        scripts.ask(_raising(redis.exceptions.ResponseError(text)))
    assert "10.0.0.1" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        f"{IN_SCRIPT} WRONGTYPE Operation against a key",
        f"{IN_SCRIPT} user_script:1: attempt to perform arithmetic on a nil value",
        "user_script:1: attempt to index a nil value script: 1, on @user_script:1.",
        f"{IN_SCRIPT} ERR value is not an integer or out of range",
    ],
)
def test_what_concerns_one_call_is_no_outage(scripts: Scripts, text: str) -> None:
    error = redis.exceptions.ResponseError(text)
    with pytest.raises(redis.exceptions.ResponseError):
        scripts.ask(_raising(error))


@pytest.mark.parametrize(
    ("error", "calls"), [(redis.exceptions.ConnectionError, 2), (redis.exceptions.TimeoutError, 1)]
)
def test_a_broken_connection_is_tried_again_and_a_late_answer_is_not_waited_for_twice(
    scripts: Scripts, error: type[Exception], calls: int
) -> None:
    asked = []

    def ask() -> None:
        asked.append(1)
        raise error

    with pytest.raises(LanesUnavailable):
        scripts.ask(ask)
    assert len(asked) == calls


def test_a_pool_without_a_free_connection_is_not_waited_for_twice(scripts: Scripts) -> None:
    scripts.client.connection_pool = redis.BlockingConnectionPool(max_connections=1, timeout=0.01)
    pool = scripts.client.connection_pool
    pool.pool.get()  # the only one
    asked = []

    def ask() -> object:
        asked.append(1)
        return pool.get_connection()

    with pytest.raises(LanesUnavailable):
        scripts.ask(ask)
    assert len(asked) == 1


def _raising(error: Exception) -> Callable[[], object]:
    def call() -> None:
        raise error

    return call


def test_the_probe_uses_every_command_that_the_scripts_use() -> None:
    used = {
        command
        for path in SCRIPTS.glob("*.lua")
        if path.stem != "probe"
        for command in re.findall(r"(?:ours|peek|redis\.p?call)\('([A-Z]+)'", path.read_text("utf-8"))
    }
    probed = (SCRIPTS / "probe.lua").read_text("utf-8")
    assert not used - set(re.findall(r"'([A-Z]+)'", probed))
    assert len(used) > 20
