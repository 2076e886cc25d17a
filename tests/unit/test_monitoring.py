"""The dashboard and the alerts in docs/monitoring ask for metrics, labels and runbooks that exist."""

import json
import re
from typing import Final

import pytest

from onelane.keys import KINDS
from onelane.telemetry.counters import Counter, Histogram
from onelane.telemetry.numbers import COUNTED
from onelane_web.metrics import GAUGES, LABELS
from tests.conftest import ROOT

MONITORING: Final = ROOT / "docs" / "monitoring"
ALERTS: Final = (MONITORING / "alerts.yml").read_text()
PANELS: Final = [
    panel for panel in json.loads((MONITORING / "grafana.json").read_text())["panels"] if panel["type"] != "row"
]
TARGETS: Final = [(target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"]]
RULES: Final = re.findall(r"^ {8}expr: (.+)$", ALERTS, re.MULTILINE)
KNOWN: Final[dict[str, set[str]]] = {
    **{name: set(LABELS.get(name, ())) for name in GAUGES},
    **{one.name + "_total": {one.label} - {""} for one in COUNTED if isinstance(one, Counter)},
    **{one.name + "_bucket": {"le"} for one in COUNTED if isinstance(one, Histogram)},
}
VALUES: Final = {one.name + "_total": set(one.read({})) for one in COUNTED if isinstance(one, Counter)}


def unknown(expression: str) -> list[str]:
    """List the metrics, labels and values of an expression that the service does not have."""
    found = []
    for name, matchers in re.findall(r"(onelane_\w+)(?:\{([^}]*)\})?", expression):
        if name not in KNOWN:
            found.append(name)
            continue
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
            if label not in KNOWN[name]:
                found.append(f"{name}{{{label}}}")
            found += [one for one in values.split("|") if name in VALUES and one not in VALUES[name]]
    return found


@pytest.mark.parametrize("expression", [*RULES, *(expression for expression, _ in TARGETS)])
def test_an_expression_asks_for_what_exists(expression: str) -> None:
    assert re.search(r"onelane_\w+", expression)
    assert unknown(expression) == []


@pytest.mark.parametrize(
    "wrong",
    ["onelane_turns", "onelane_workers{state='in'}", 'onelane_turns_total{outcome="ded"}', "onelane_turn_seconds"],
)
def test_what_does_not_exist_is_found(wrong: str) -> None:
    assert unknown(wrong.replace("'", '"'))


def test_a_legend_names_a_label_that_its_expression_keeps() -> None:
    for expression, legend in TARGETS:
        for label in re.findall(r"\{\{(\w+)\}\}", legend):
            kept = re.findall(r"sum by \((\w+)\)", expression) or KNOWN[expression.partition("{")[0]]
            assert label in kept, (expression, legend)


def test_every_alert_has_a_rule_and_a_runbook() -> None:
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / "OPERATIONS.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    runbooks = re.findall(r"^ {10}runbook: docs/OPERATIONS\.md#(.+)$", ALERTS, re.MULTILINE)
    names = re.findall(r"^ {6}- alert: (\w+)$", ALERTS, re.MULTILINE)
    assert len(names) == len(set(names)) == len(runbooks) == len(RULES) > 0
    assert set(runbooks) <= anchors


@pytest.mark.parametrize(
    "number",
    [
        *(f'onelane_oldest_wait_seconds{{kind="{kind}"}}' for kind in KINDS),
        *sorted(GAUGES.keys() - {"onelane_lanes", "onelane_oldest_wait_seconds", "onelane_replies_waiting"}),
        'onelane_send_requests_total{class="unknown"}',
        "onelane_quarantined_total",
        "onelane_replies_duplicated_total",
        "onelane_identity_conflicts_total",
        "onelane_takeovers_total",
        'onelane_turns_total{outcome=~"dead|paused"}',
        'onelane_turns_total{outcome="later"}',
        'onelane_replies_total{state="failed"}',
    ],
)
def test_what_somebody_must_look_after_has_an_alert(number: str) -> None:
    assert any(number in rule for rule in RULES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_dashboard_shows_the_lanes_of_a_kind(kind: str) -> None:
    assert f'onelane_lanes{{kind="{kind}"}}' in dict(TARGETS)


def test_no_two_panels_lie_on_each_other() -> None:
    places = [(x, y) for panel in PANELS for x, y in _cells(panel["gridPos"])]
    assert len(places) == len(set(places))


def _cells(place: dict[str, int]) -> list[tuple[int, int]]:
    return [
        (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
    ]
