"""Spans: none without OpenTelemetry, and never a text, an address or a name in one."""

import sys
import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor

from onelane.channels.sender import OnUnknown
from onelane.config import Settings
from onelane.deliveries import Accepted
from onelane.doctor.finding import Finding, Health
from onelane.doctor.tracing import spans_arrive
from onelane.model import Message, SessionRead, TurnRead, UserRead
from onelane.outbox.reply import BeginOutcome
from onelane.telemetry import open_telemetry, tracing
from onelane.telemetry.open_telemetry import OpenTelemetry
from tests.collector import InMemory, collector, trace_in_memory
from tests.conftest import LogLines
from tests.shipping import TOKEN, KeptRecords, PlainSender, Trip, ago, waiting

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
SECRET = "what nobody may see"


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> InMemory:
    return trace_in_memory(monkeypatch)


def turn_of(*traceparents: str | None) -> TurnRead:
    """A turn of a message for each."""
    messages = [
        Message(
            id=uuid4(),
            seq=seq,
            text=SECRET,
            button=None,
            attachments=(),
            accepted_at=datetime.now(UTC),
            attempts=0,
            traceparent=traceparent,
        )
        for seq, traceparent in enumerate(traceparents, 1)
    ]
    user = UserRead(id=uuid4(), channel="support", sender=SECRET, state={})
    session = SessionRead(id=uuid4(), status="active", started_at=datetime.now(UTC), state={})
    return TurnRead(version=1, messages=tuple(messages), user=user, session=session)


def accepted() -> Accepted:
    return Accepted(message_id=uuid4(), user_id=uuid4(), seq=1, duplicate=False, is_waiting=True)


def hex_of(span_id: int) -> str:
    return f"{span_id:016x}"


def test_without_a_tracer_nothing_is_made_and_no_row_gets_a_column_more() -> None:
    items: list[dict[str, Any]] = [{}]
    with tracing.accepting("support", items) as sends:
        sends.note([accepted()])
    tracing.received(turn_of(PARENT), 1)
    assert items == [{}]
    assert tracing.traceparent() == {}
    opened = (
        tracing.webhook("support", PARENT, 1),
        tracing.working_off(turn_of(PARENT), 1),
        tracing.settling(turn_of(None)),
    )
    assert all(one is tracing.NOTHING for one in opened)


def test_a_request_goes_on_with_the_trace_that_its_headers_name(in_memory: InMemory) -> None:
    with tracing.webhook("support", PARENT, 1) as span:
        span.note({"http.response.status_code": 200, "nothing": None})
    made = in_memory.named("POST /webhooks/support")
    assert made.parent
    assert (f"{made.parent.trace_id:032x}", hex_of(made.parent.span_id)) == tuple(PARENT.split("-")[1:3])
    assert made.attributes
    assert "nothing" not in made.attributes


@pytest.mark.parametrize("header", ["", "rubbish", PARENT[:-1], "ff" + PARENT[2:], f"00-{'0' * 32}-{'0' * 16}-01"])
def test_what_is_no_traceparent_begins_a_trace(header: str, in_memory: InMemory) -> None:
    with tracing.webhook("support", header, 1):
        pass
    assert in_memory.named("POST /webhooks/support").parent is None


def test_each_message_of_a_webhook_has_a_span_of_its_own_that_its_turn_goes_on_with(in_memory: InMemory) -> None:
    items: list[dict[str, Any]] = [{}, {}]
    with tracing.webhook("support", "", 1), tracing.accepting("support", items) as sends:
        sends.note([accepted(), ValueError(SECRET)])
    stands, fails = (span for span in in_memory.spans if span.name == "send support")
    assert stands.parent == fails.parent == in_memory.named("POST /webhooks/support").get_span_context()
    assert len({item["traceparent"] for item in items}) == 2
    assert fails.attributes
    assert fails.attributes["error.type"] == "ValueError"
    with tracing.working_off(turn_of(items[0]["traceparent"]), 1):
        pass
    turn = in_memory.named("process support")
    assert turn.parent
    assert hex_of(turn.parent.span_id) == items[0]["traceparent"].split("-")[2]


def test_a_turn_of_several_messages_links_to_each(in_memory: InMemory) -> None:
    other = PARENT.replace("00f0", "10f0")
    with tracing.working_off(turn_of(PARENT, None, other), 1):
        pass
    made = in_memory.named("process support")
    assert made.parent is None
    assert [hex_of(link.context.span_id) for link in made.links] == [one.split("-")[2] for one in (PARENT, other)]


def test_an_error_is_named_by_its_class_and_its_text_is_nowhere(in_memory: InMemory) -> None:
    with pytest.raises(RuntimeError), tracing.working_off(turn_of(PARENT), 1), tracing.handling(is_apart=False):
        raise RuntimeError(SECRET)
    for span in in_memory.spans:
        assert span.attributes
        assert span.attributes["error.type"] == "RuntimeError"
        assert span.status.status_code is trace.StatusCode.ERROR
        assert SECRET not in span.to_json()


def test_what_is_not_sampled_is_not_sent_and_its_rows_say_so(in_memory: InMemory) -> None:
    items: list[dict[str, Any]] = [{}]
    with tracing.webhook("support", PARENT[:-2] + "00", 1), tracing.accepting("support", items):
        pass
    assert in_memory.spans == ()
    assert items[0]["traceparent"].endswith("-00")


def test_a_span_of_the_bots_own_is_below_its_handler(in_memory: InMemory) -> None:
    with tracing.working_off(turn_of(PARENT), 1), tracing.handling(is_apart=False):
        around = trace.get_current_span().get_span_context()
    assert around == in_memory.named("handle").get_span_context()
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize(("answer", "error"), [("taken", None), ("unclear", "unclear")])
def test_a_request_for_a_reply_goes_on_with_what_the_reply_comes_of(
    answer: str, error: str | None, in_memory: InMemory
) -> None:
    async def unclear(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(500, json={})

    trip = Trip(waiting(traceparent=PARENT, text=SECRET), sender=PlainSender(None if answer == "taken" else unclear))
    trip.run()
    made = in_memory.named("send demo")
    assert made.parent
    assert f"{made.parent.trace_id:032x}" == TRACE
    assert made.attributes
    assert (made.attributes.get("error.type") is None) is (error is None)
    assert not any(word in made.to_json() for word in (SECRET, TOKEN, "+15550100", "provider.invalid"))


def test_an_unknown_reply_is_looked_up_in_its_trace(in_memory: InMemory) -> None:
    reply = waiting(traceparent=PARENT, sending_at=ago(60), unknown_since=ago(30))
    records = KeptRecords(reply, outcome=BeginOutcome.UNKNOWN)
    Trip(records=records, sender=PlainSender(on_unknown=OnUnknown.ASK)).run()
    made = in_memory.named("look_up demo")
    assert made.parent
    assert f"{made.parent.trace_id:032x}" == TRACE


def test_the_doctor_says_what_becomes_of_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(**variables: str) -> Finding:
        for name, value in variables.items():
            monkeypatch.setenv(name.upper(), value)
        settings = Settings(database_url="postgresql://db/d", redis_url="redis://lanes", **variables)  # type: ignore[arg-type]
        return spans_arrive(SimpleNamespace(settings=settings))  # type: ignore[arg-type]

    assert found().health is Health.OK
    with collector() as (collected, variables):
        endpoint = str(variables["otel_exporter_otlp_endpoint"])
        assert found(otel_exporter_otlp_endpoint=endpoint).health is Health.OK
        assert (len(collected.bodies), collected.spans) == (1, [])
    monkeypatch.setattr(open_telemetry, "ANSWERS_S", 0.1)
    silent = found(otel_exporter_otlp_endpoint=endpoint)
    assert (silent.health, "does not take spans" in silent.found) == (Health.WARNING, True)
    monkeypatch.delitem(sys.modules, "onelane.telemetry.open_telemetry")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    missing = found(otel_exporter_otlp_endpoint=endpoint)
    assert (missing.health, missing.todo) == (Health.WARNING, "pip install 'onelane[otel]', or unset it")


def test_without_opentelemetry_a_process_starts_and_says_so(
    monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    monkeypatch.delitem(sys.modules, "onelane.telemetry.open_telemetry", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    tracing.start("worker")
    assert tracing._tracer is None
    assert [(line["event"], line["error"]) for line in log_lines] == [("tracing_impossible", "ModuleNotFoundError")]


def test_an_end_waits_for_a_collector_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    class Silent(SpanProcessor):
        def shutdown(self) -> None:
            answers.wait()

    monkeypatch.setattr(tracing, "STOPS_S", 0.05)
    monkeypatch.setattr(tracing, "_tracer", OpenTelemetry(Silent(), "test"))
    tracing.stop()
    assert not answers.is_set()
    assert tracing._tracer is None
    answers.set()


@pytest.mark.parametrize(
    ("variables", "is_traced"),
    [
        ({}, False),
        ({"otel_exporter_otlp_endpoint": "http://127.0.0.1:1"}, True),
        ({"otel_exporter_otlp_traces_endpoint": "http://127.0.0.1:1/v1/traces"}, True),
        ({"otel_exporter_otlp_endpoint": "http://127.0.0.1:1", "otel_sdk_disabled": True}, False),
        ({"otel_exporter_otlp_endpoint": "http://127.0.0.1:1", "otel_traces_exporter": "none"}, False),
    ],
)
def test_the_sdks_own_variables_decide_whether_anything_is_traced(variables: dict[str, Any], is_traced: bool) -> None:
    settings = Settings(database_url="postgresql://db/d", redis_url="redis://lanes", **variables)
    assert settings.is_traced is is_traced
