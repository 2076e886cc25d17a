"""The keys: Python and the scripts make the same ones."""

import re

import pytest

from onelane import keys
from onelane.lanes.scripts import SCRIPTS

PRELUDE = (SCRIPTS / "prelude.lua").read_text()
ARGUMENT = "U"
FUNCTIONS = re.findall(r"local function (\w+)\(\w+\) return (.+?) end", PRELUDE)
MADE = {name: made for name, made in FUNCTIONS if name.endswith(("_key", "_name"))}
"""How the prelude's functions make a key, by their names."""


def made(expression: str, kind: str) -> str:
    """Work out what Lua makes of strings joined by `..`."""
    values = {"KIND": kind, "QUEUE": keys.QUEUE_PREFIXES[kind]}
    parts = (part.strip() for part in expression.split(".."))
    return "".join(part.strip("'") if part.startswith("'") else values.get(part, ARGUMENT) for part in parts)


@pytest.mark.parametrize("kind", keys.QUEUE_PREFIXES)
def test_the_scripts_make_the_keys_that_python_makes(kind: str) -> None:
    assert {
        "queue_name": keys.queue_name(ARGUMENT, kind),
        "queue_key": keys.queue(ARGUMENT, kind),
        "failed_key": keys.failed(ARGUMENT, kind),
        "job_key": keys.job(ARGUMENT),
        "results_key": keys.results(ARGUMENT),
        "lock_key": keys.lock(ARGUMENT, kind),
        "session_key": keys.session(ARGUMENT),
        "beat_key": keys.beat(ARGUMENT),
        "worker_key": keys.worker(ARGUMENT),
    } == {name: made(expression, kind) for name, expression in MADE.items() if name != "pace_key"}
    assert "local LANES, WAKE, BURIED = 'lanes:' .. KIND, 'wake:' .. KIND, 'buried:' .. KIND" in PRELUDE
    assert (keys.lanes(kind), keys.wake(kind), keys.buried(kind)) == (f"lanes:{kind}", f"wake:{kind}", f"buried:{kind}")


def test_every_key_of_the_scripts_is_in_the_catalogue() -> None:
    catalogue = keys.__doc__ or ""
    found = [made(expression, "in").removesuffix(ARGUMENT) for name, expression in MADE.items() if name != "queue_name"]
    listed = [
        key.replace("<kind>", "in").partition("<id>")[0] for key in re.findall(r"^\| (\S+)", catalogue, re.MULTILINE)
    ]
    assert all(any(prefix.startswith(one.partition("<")[0]) for one in listed) for prefix in found)
    assert {"lanes:<kind>", "wake:<kind>", "buried:<kind>", "fence", "rq:queues"} <= set(
        re.findall(r"^\| (\S+)", catalogue, re.MULTILINE)
    )
