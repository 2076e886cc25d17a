"""The documents tell of everything that is there, and of nothing else; the ways to start it agree with each other."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode

from onelane.channels import PROVIDERS
from onelane.cli import onelane
from onelane.config import Channel, Settings
from onelane.postgres.budget import budget
from onelane.telemetry.counters import Counter
from onelane.telemetry.events import EVENTS
from onelane.telemetry.numbers import COUNTED
from onelane_web.metrics import GAUGES, LABELS
from tests.conftest import ROOT
from tests.deploys import procfile

OPERATIONS = (ROOT / "docs" / "OPERATIONS.md").read_text()
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
ROW = re.compile(r"^\|(.*)\|$", re.MULTILINE)
RUNBOOKS = {"Deploy", "Scale", "Redis lost", "Postgres down", "Stuck lane", "Poison message", "Rotate a secret"}
OTEL = {
    f"OTEL_{name}"
    for name in (
        "BSP_SCHEDULE_DELAY",
        "EXPORTER_OTLP_HEADERS",
        "EXPORTER_OTLP_PROTOCOL",
        "RESOURCE_ATTRIBUTES",
        "SERVICE_NAME",
        "TRACES_SAMPLER",
        "TRACES_SAMPLER_ARG",
    )
}
"""What OpenTelemetry's SDK reads by itself."""
DEPLOYMENT = ["Dockerfile", "compose.yaml", "app.json", "Procfile", ".dockerignore"]


def rows_of(heading: str) -> list[list[str]]:
    """Return the cells of the table rows between a heading and the next, without the table's head."""
    text = HEADING.split(OPERATIONS)
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in ROW.findall(text[text.index(heading) + 1])
    ]
    return [row for row in rows[1:] if set(row[0]) != {"-"}]


def documented(heading: str) -> dict[str, list[str]]:
    """Return the rows by what is named in their first cell, and check that nothing is named twice."""
    rows = {row[0].strip("`"): row[1:] for row in rows_of(heading)}
    assert len(rows) == len(rows_of(heading))
    return rows


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default in (None, "", {}):
        return ""
    if NoDecode in field.metadata:
        return f"`{','.join(field.default)}`"
    return f"`{field.default if isinstance(field.default, str) else json.dumps(field.default)}`"


def test_every_setting_is_documented_with_its_default_and_no_other() -> None:
    told = {name: row[0] for name, row in documented("Settings").items()}
    assert told == {name.upper(): default_of(field) for name, field in Settings.model_fields.items()}


def test_every_field_of_a_channel_is_documented_with_its_default_and_no_other() -> None:
    told = {name: row[0] for name, row in documented("A channel").items()}
    assert told == {name: default_of(field) for name, field in Channel.model_fields.items()}


def test_every_setting_of_a_provider_is_documented_with_its_default_and_no_other() -> None:
    shown = {(provider.strip("`"), name.strip("`")): default for provider, name, default, _ in rows_of("Providers")}
    assert shown == {
        (provider, name): default_of(field)
        for provider, kind in PROVIDERS.items()
        for name, field in kind.settings_model.model_fields.items()
    }


def commands(command: click.Command, *path: str) -> Iterator[tuple[str, str]]:
    """Walk the tree of commands, each with its help's first paragraph; groups by themselves do nothing."""
    if not isinstance(command, click.Group):
        yield " ".join(path), " ".join((command.help or "").split("\n\n")[0].split())
        return
    for name, below in command.commands.items():
        yield from commands(below, *path, name)


def test_every_command_is_documented_with_its_help_and_no_other() -> None:
    assert {name: row[0] for name, row in documented("Commands").items()} == dict(commands(onelane, "onelane"))


def test_every_metric_is_documented_with_its_label_and_help_and_no_other() -> None:
    shown = {name: (row[1].strip("`"), row[2]) for name, row in documented("Metrics").items()}
    counted = {
        one.name + "_total" * isinstance(one, Counter): (getattr(one, "label", ""), one.help_text) for one in COUNTED
    }
    assert shown == counted | {name: ("`, `".join(LABELS.get(name, ())), text) for name, text in GAUGES.items()}


def test_every_log_event_is_documented_with_its_level_and_meaning_and_no_other() -> None:
    shown = {name: tuple(row) for name, row in documented("Log events").items()}
    assert shown == {name: (event.level, event.meaning) for name, event in EVENTS.items()}


def test_the_incidents_questions_name_events_that_exist() -> None:
    asked = {
        event for _, how in rows_of("The incident's questions") for event in re.findall(r'[("|]([a-z]+_[a-z_]+)', how)
    }
    assert asked - {"session_id"} <= set(EVENTS)
    assert {"session_opened", "session_ended", "turn_ended"} <= asked


def test_every_name_in_capitals_is_a_setting() -> None:
    names = set(re.findall(r"`(?:\$)?([A-Z]{2,}(?:_[A-Z]+)+)\b", OPERATIONS))
    others = {row[0].strip("`") for row in rows_of("What a shell has exported for another project")}
    assert (
        names
        <= {name.upper() for name in Settings.model_fields}
        | {"ONELANE_DATA", "MESSAGE_ID", "CHANNEL_SUPPORT", "PAGES_USERS"}
        | others
        | OTEL
    )


def test_the_connections_are_counted_as_the_code_counts_them() -> None:
    settings = Settings.model_construct(database_url="", redis_url="")
    rows = [[int(cell) for cell in row] for row in rows_of("Sizing") if all(cell.isdigit() for cell in row)]
    assert rows
    for webs, workers, *told in rows:
        alone = budget(settings, webs=webs, workers=workers, overlaps=False)
        deploy = budget(settings, webs=webs, workers=workers)
        assert told == [alone.postgres, deploy.postgres, alone.redis, deploy.redis]


def test_there_is_a_runbook_for_everything() -> None:
    assert set(HEADING.findall(OPERATIONS)) >= RUNBOOKS


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_and_every_path_leads_somewhere(document: Path) -> None:
    text = document.read_text()
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link} - {""}
    paths = set(re.findall(r"`((?:app|worker|sql|tests|bench|docs)/[\w./-]+)`", text))
    assert [link for link in links if not (document.parent / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_of_python_compiles(document: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE):
        compile(block, document.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_every_term_of_the_glossary_is_explained_once() -> None:
    text = (ROOT / "docs" / "DESIGN.md").read_text()
    glossary = text[text.index("## Glossary") : text.index("## The way of a message")]
    terms = [term for row in re.findall(r"^\| ([^|]+) \|", glossary, re.MULTILINE) for term in row.split(", ")]
    explained = [term for term in terms if term != "term" and set(term) != {"-"}]
    assert len(explained) > 50
    assert len(set(explained)) == len(explained)


def test_dynos_containers_and_documents_start_the_same_processes() -> None:
    processes = procfile()
    assert json.dumps(processes["web"]) in (ROOT / "Dockerfile").read_text()
    assert (ROOT / "Procfile").read_text() in (ROOT / "docs" / "DEPLOY.md").read_text()
    compose = (ROOT / "compose.yaml").read_text()
    assert all(f"command: {json.dumps(processes[name])}" in compose for name in ("release", "worker"))
    told = {row[0]: row[1].strip("`").removeprefix("exec ").split() for row in rows_of("Processes")}
    assert {name: told[name] for name in processes} == processes


def test_app_json_sets_what_exists_and_starts_what_the_procfile_names() -> None:
    described: dict[str, Any] = json.loads((ROOT / "app.json").read_text())
    assert set(described["env"]) <= {name.upper() for name in Settings.model_fields} | {"PGSSLMODE"}
    assert set(described["formation"]) <= set(procfile())
    assert {name for name, one in described["env"].items() if one.get("generator") == "secret"} == {
        "OPS_PASSWORD",
        "SECRET_KEY",
        "METRICS_TOKEN",
    }


@pytest.mark.parametrize("name", DEPLOYMENT)
def test_nothing_comes_from_a_named_host(name: str) -> None:
    text = (ROOT / name).read_text()
    images = re.findall(r"^\s*(?:FROM|image:) (\S+)", text, re.MULTILINE)
    assert not any("/" in image for image in images)
    hosts = set(re.findall(r"https?://([^/:'\"]+)", text))
    assert hosts <= {"127.0.0.1"}
