"""Each command that a document gives its reader to type is run by a test, or it is listed why none can run it."""

import re
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import ROOT
from tests.documented import commands_of

DOCUMENTS: Final = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    ROOT / "worker" / "onelane" / "dev" / "init" / "templates" / "readme.txt",
]
NEW_USER: Final = "tests/slow/test_new_user.py::test_from_nothing_to_an_answer"
CHECKOUT: Final = "tests/slow/test_new_user.py::test_the_commands_of_a_checkout"
RUN_BY: Final = {
    r"pip install 'onelane\[embedded\](==\$version)?'": NEW_USER,
    r"onelane init mybot( && cd mybot)?|cd mybot": NEW_USER,
    r"onelane run (mybot|\$name):handle": NEW_USER,
    r'onelane send --user alice (--count 5 )?"(hello|quick)"': NEW_USER,
    r"pytest": NEW_USER,
    r"make run": CHECKOUT,
    r"\.venv/bin/onelane (send .*|incident)": CHECKOUT,
    r"onelane send --(provider|user alice --message-id) (?!.*--status).*": CHECKOUT,
    r"onelane send .* --status delivered --reply ID": (
        "tests/web/test_pages_of_a_run.py::test_a_workers_death_a_take_over_an_attempt_and_a_reply_are_read_in_order"
    ),
    r"onelane incident": "tests/integration/test_incident.py::test_the_docs_show_what_the_command_prints",
    r"(now=.*)?curl -s .*127\.0\.0\.1.*": (
        "tests/integration/test_curl.py::test_the_handshakes_of_the_document_answer_as_it_says"
    ),
    r"python -m onelane\.testing\.fake_providers .*": (
        "tests/unit/test_fake_providers.py::test_the_fakes_end_with_whoever_started_them"
    ),
    r"export CHANNELS=.* -m onelane\.testing\.conformance .*": (
        "tests/unit/test_conformance.py::test_the_command_prints_the_channels_that_an_application_must_have"
    ),
    r"python -m onelane\.testing\.conformance onelane_web.*": (
        "tests/integration/test_our_conformance.py::test_our_web_answers_as_the_document_says"
    ),
    r"python docs/monitoring/spans\.py .*|OTEL_EXPORTER_OTLP_ENDPOINT=.* onelane run": (
        "tests/integration/test_traces.py::test_the_collector_of_the_documents_prints_the_spans_by_name_parent_and_time"
    ),
}
"""The test that types it, or what comes to the same."""
NOT_RUN: Final = {
    r"make test": "it is the run of all tests",
    r"curl \"https://api\.telegram\.org/.*": "it needs an account",
    r"heroku .*|git init .*|git push heroku main": "it needs an account",
    r"docker build .*|.* docker compose up .*": "it needs Docker",
    r"python -m venv audit|audit/bin/.*|sed .* audit/pins\.txt": "a service is asked for advisories",
    r"sudo .*": "it changes the machine: it is for a server of yours",
}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_each_command_is_run_by_a_test_or_listed_with_the_reason(document: Path) -> None:
    for command in commands_of(document):
        fitting = [one for one in (*RUN_BY, *NOT_RUN) if re.fullmatch(one, command)]
        assert len(fitting) == 1, (command, fitting)


def test_nothing_is_listed_that_no_document_has() -> None:
    commands = [command for document in DOCUMENTS for command in commands_of(document)]
    used = Counter(one for one in (*RUN_BY, *NOT_RUN) for command in commands if re.fullmatch(one, command))
    assert set(used) == {*RUN_BY, *NOT_RUN}
    assert len(commands) > 30


@pytest.mark.parametrize("named", sorted(set(RUN_BY.values())))
def test_the_tests_that_run_them_are_there(named: str) -> None:
    file, _, name = named.partition("::")
    assert f"\ndef {name}(" in (ROOT / file).read_text()
