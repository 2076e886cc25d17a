"""A collector of spans: what processes send to it over HTTP, or what a tracer in this process has made."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from onelane.telemetry import tracing
from onelane.telemetry.open_telemetry import OpenTelemetry


class Collected(NamedTuple):
    """A span, as it was sent."""

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    attributes: dict[str, Any]
    process: str


class Collector:
    """What was sent, as it was and read."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    @property
    def spans(self) -> list[Collected]:
        return [span for body in list(self.bodies) for span in _spans_in(body)]

    def named(self, name: str) -> list[Collected]:
        return [span for span in self.spans if span.name == name]


@contextmanager
def collector() -> Iterator[tuple[Collector, dict[str, Any]]]:
    """Collect; yields also the variables with which a process sends its spans here, soon."""
    collected = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collected.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collected, sending_to(server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sending_to(port: int) -> dict[str, Any]:
    return {"otel_exporter_otlp_endpoint": f"http://127.0.0.1:{port}", "otel_bsp_schedule_delay": 50}


class InMemory:
    """The spans of this process."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    @property
    def traces(self) -> set[str]:
        return {f"{span.context.trace_id:032x}" for span in self.spans if span.context}

    def id_of(self, name: str) -> str:
        context = self.named(name).context
        assert context
        return f"{context.span_id:016x}"

    def named(self, name: str) -> ReadableSpan:
        [span] = [span for span in self.spans if span.name == name]
        return span


def trace_in_memory(monkeypatch: pytest.MonkeyPatch) -> InMemory:
    """Trace what this process does until the test ends."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "_tracer", OpenTelemetry(SimpleSpanProcessor(exporter), "test"))
    return InMemory(exporter)


def _spans_in(body: bytes) -> Iterator[Collected]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        about = _read(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Collected(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    _read(span.attributes),
                    f"{about['onelane.process']} {about['process.pid']}",
                )


def _read(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
