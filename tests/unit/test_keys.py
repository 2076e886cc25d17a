"""The keys: Python and the scripts make the same ones."""

import re

from onelane import keys
from onelane.lanes.scripts import SCRIPTS

PRELUDE = (SCRIPTS / "prelude.lua").read_text()
MADE = dict(re.findall(r"local function (\w+)\(\w+\) return '([a-z:]+)' \.\. \w+ end", PRELUDE))
"""What the prelude's functions put before their argument, by the function's name."""


def test_the_scripts_make_the_keys_that_python_makes() -> None:
    assert {
        "queue_name": keys.queue_name("U"),
        "queue_key": keys.queue("U"),
        "failed_key": keys.failed("U"),
        "job_key": keys.job("U"),
        "results_key": keys.results("U"),
        "lock_key": keys.lock("U"),
        "session_key": keys.session("U"),
    } == {name: f"{prefix}U" for name, prefix in MADE.items() if name != "pace_key"}


def test_every_key_of_the_scripts_is_in_the_catalogue() -> None:
    catalogue = keys.__doc__ or ""
    assert all(f"| {prefix}<" in catalogue for name, prefix in MADE.items() if name != "queue_name")
    constants = re.search(r"^local LANES.* = (.*)$", PRELUDE, re.MULTILINE)
    assert constants is not None
    assert all(f"| {name} " in catalogue for name in re.findall(r"'([a-z:]+)'", constants[1]))
