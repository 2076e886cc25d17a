"""The keys: Python and the scripts make the same ones, and every one has the deployment's prefix."""

import re
from fnmatch import fnmatch
from typing import Any

import pytest

from onelane import keys
from onelane.lanes.prefixed import prefixed
from onelane.lanes.scripts import SCRIPTS
from tests.conftest import ROOT

PRELUDE = (SCRIPTS / "prelude.lua").read_text()
ARGUMENT = "U"
PREFIX = "staging:"
FUNCTIONS = re.findall(r"local function (\w+)\(\w+\) return (.+?) end", PRELUDE)
MADE = {name: made for name, made in FUNCTIONS if name.endswith(("_key", "_name"))}
"""How the prelude's functions make a key, by their names."""
NO_KEYS = {"queue_name", "listed_worker_key"}
CONSTANTS = {
    name: made
    for names, values in re.findall(r"^local ([A-Z_, ]+) = (PREFIX .*)$", PRELUDE, re.MULTILINE)
    for name, made in zip(names.split(", "), values.split(", "), strict=True)
}


def made(expression: str, kind: str = "in", prefix: str = "") -> str:
    """Work out what Lua makes of strings joined by `..`."""
    values = {"KIND": kind, "QUEUE": keys.QUEUE_PREFIXES[kind], "PREFIX": prefix}
    parts = (part.strip() for part in expression.split(".."))
    return "".join(part.strip("'") if part.startswith("'") else values.get(part, ARGUMENT) for part in parts)


@pytest.mark.parametrize("kind", keys.QUEUE_PREFIXES)
def test_the_scripts_make_the_keys_that_python_makes(kind: str) -> None:
    of_scripts = {name: made(expression, kind) for name, expression in (MADE | CONSTANTS).items()}
    of_python = {
        "queue_name": keys.queue_name(ARGUMENT, kind),
        "queue_key": keys.queue(ARGUMENT, kind),
        "failed_key": keys.failed(ARGUMENT, kind),
        "job_key": keys.job(ARGUMENT),
        "results_key": keys.results(ARGUMENT),
        "lock_key": keys.lock(ARGUMENT, kind),
        "session_key": keys.session(ARGUMENT),
        "collect_key": keys.collect(ARGUMENT),
        "beat_key": keys.beat(ARGUMENT),
        "worker_key": keys.worker(ARGUMENT),
        "newer_key": keys.newer(ARGUMENT),
        "duty_key": keys.duty(ARGUMENT),
        "LANES": keys.lanes(kind),
        "WAKE": keys.wake(kind),
        "buried_key": keys.buried(ARGUMENT),
        "FENCE": keys.FENCE,
        "INSTANCE": keys.INSTANCE,
        "NUMBERS": keys.NUMBERS,
        "MINUTES": keys.MINUTES,
        "reconciled_key": keys.reconciled(ARGUMENT),
        "RECONCILE_CURSOR": keys.reconcile_cursor(kind),
        "QUEUES": keys.RQ_QUEUES,
        "WORKERS": keys.RQ_WORKERS,
    }
    assert of_python.items() <= of_scripts.items()


def test_the_scripts_know_the_same_kinds() -> None:
    assert "local KINDS = { 'in', 'out' }" in PRELUDE
    assert keys.KINDS == tuple(keys.QUEUE_PREFIXES) == ("in", "out")


def test_every_key_of_the_scripts_is_in_the_catalogue() -> None:
    listed = {key.partition("<")[0] for key in re.findall(r"^\| (\S+)", keys.__doc__ or "", re.MULTILINE)}
    found = {made(one).removesuffix(ARGUMENT) for name, one in (MADE | CONSTANTS).items() if name not in NO_KEYS}
    assert {key for key in found if not key.startswith(tuple(listed))} == set()


def test_every_key_that_a_script_makes_has_the_prefix() -> None:
    every = {name: made(one, prefix=PREFIX) for name, one in (MADE | CONSTANTS).items() if name != "queue_name"}
    assert {name for name, key in every.items() if not key.startswith(PREFIX)} == set()


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.lua")))
def test_no_script_spells_a_key_of_its_own(script: str) -> None:
    text = (SCRIPTS / script).read_text()
    assert re.findall(r"""(?:call|ours|peek|unless_full)\((?:'[A-Z]+', )?'[a-z].*""", text) == []


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        (("PING",), ("PING",)),
        (("CONFIG GET", "save"), ("CONFIG GET", "save")),
        (("PUBLISH", "rq:pubsub:w", "{}"), ("PUBLISH", "rq:pubsub:w", "{}")),
        (("GET", b"fence"), ("GET", "staging:fence")),
        (("SADD", "rq:workers", "rq:worker:w"), ("SADD", "staging:rq:workers", "rq:worker:w")),
        (("LMOVE", "a", "b", "LEFT", "LEFT"), ("LMOVE", "staging:a", "staging:b", "LEFT", "LEFT")),
        (("DEL", "a", "b"), ("DEL", "staging:a", "staging:b")),
        (("BLPOP", "wake:in", 1), ("BLPOP", "staging:wake:in", 1)),
        (("EVALSHA", "d", 1, "key", "argument"), ("EVALSHA", "d", 1, "staging:key", "argument")),
        (("EVALSHA", "d", 0, "argument"), ("EVALSHA", "d", 0, "argument")),
    ],
)
def test_a_command_is_sent_with_the_prefix_in_front_of_its_keys_and_of_nothing_else(
    command: tuple[Any, ...], sent: tuple[Any, ...]
) -> None:
    assert prefixed(PREFIX, command) == sent


def test_a_command_whose_keys_are_not_known_is_not_sent() -> None:
    with pytest.raises(ValueError, match="SORT"):
        prefixed(PREFIX, ("SORT", "a"))


def test_the_rights_that_the_documents_name_are_for_every_key_and_for_no_other() -> None:
    _, *listed = re.findall(r"^\| ([a-z][^|]*?) *\|", keys.__doc__ or "", re.MULTILINE)
    ours = [re.sub("<[^>]*>", ARGUMENT, key) for key in listed] + ["nothing"]  # which probe.lua writes and removes
    [rules] = re.findall(r"ACL SETUSER onelane on >PASSWORD (.+)", (ROOT / "docs/OPERATIONS.md").read_text("utf-8"))
    patterns = [rule[1:] for rule in rules.split() if rule.startswith("~")]
    assert len(ours) > 30
    assert [key for key in ours if not any(fnmatch(key, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(key, pattern) for key in ours)] == []
