"""What a chaos run may leave behind in Redis: every key of the catalogue has its fate."""

import re
from uuid import uuid4

import pytest

from onelane import keys
from tests.chaos.service.leftovers import LIVES

ABSENT = ("ops:", "pace:", "rq:suspended")
"""Keys that no run makes: nobody logs in, no user has a limit, nothing is suspended."""
LISTED = [name for name in re.findall(r"^\| ([a-z][^|]*?) *\|", keys.__doc__ or "", re.MULTILINE) if name != "key"]


@pytest.mark.parametrize("name", [name for name in LISTED if not name.startswith(ABSENT)])
def test_the_harness_knows_what_becomes_of_each_key(name: str) -> None:
    key = re.sub(r"<[a-z ]+>", str(uuid4()), name.replace("<kind>", "in"))
    assert any(re.fullmatch(form, key) for form in LIVES)
