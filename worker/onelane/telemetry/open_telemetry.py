"""Spans as OpenTelemetry's SDK makes them: the only module that imports it.

The SDK reads OTEL_* by itself: where spans go, with which headers, how many are sampled. It keeps what is to be sent in
a bounded queue, sends it from a thread of its own, and drops what does not fit.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final, Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from onelane.errors import kind_of
from onelane.telemetry.tracing import Attributes, Kind, Span

ANSWERS_S: Final = 5.0
UNNAMED: Final = "unknown_service"
W3C: Final = TraceContextTextMapPropagator()


class Recorded(Span):
    """A span of OpenTelemetry."""

    def __init__(self, span: trace.Span) -> None:
        self.span = span

    @property
    def traceparent(self) -> str | None:
        """Write the span's context down."""
        return _written(self.span)

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""
        self.span.set_attributes(_plain(attributes))

    def fail(self, kind: str) -> None:
        """Say that it failed."""
        self.span.set_attribute("error.type", kind)
        self.span.set_status(trace.StatusCode.ERROR)

    def end(self) -> None:
        """End it."""
        self.span.end()


class OpenTelemetry:
    """A tracer over a provider of its own. Spans of a bot's own code go the same way, unless it has set up another."""

    def __init__(self, processor: SpanProcessor, process: str) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith(UNNAMED):
            resource = resource.merge(Resource({SERVICE_NAME: "onelane"}))
        own = Resource({"onelane.process": process, "process.pid": os.getpid()})
        self._provider = TracerProvider(resource=resource.merge(own), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("onelane")
        self._is_to_stop, self._has_stopped = Event(), Event()
        # Started now: a process that ends may start none.
        Thread(target=self._await_stop, name="last-spans", daemon=True).start()

    @classmethod
    def exporting(cls, process: str) -> Self:
        """Send spans where the environment says."""
        tracer = cls(BatchSpanProcessor(OTLPSpanExporter()), process)
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(tracer._provider)
        return tracer

    @property
    def traceparent(self) -> str | None:
        """That of the span around the caller."""
        return _written(trace.get_current_span())

    def begun(self, name: str, kind: Kind, attributes: Attributes) -> Span:
        """Begin a span."""
        return self._begun(name, kind, attributes)

    @contextmanager
    def around(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        parent: str | None = None,
        links: Sequence[str] = (),
        began_ns: int | None = None,
    ) -> Iterator[Span]:
        """Open a span. The SDK itself would note the texts of errors."""
        span = self._begun(name, kind, attributes, _context(parent), links, began_ns)
        with trace.use_span(span.span, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as error:
                span.fail(kind_of(error))
                raise
            finally:
                span.end()

    def passed(self, name: str, attributes: Attributes, parent: str | None, began_ns: int) -> None:
        """Record what is over."""
        self._begun(name, Kind.CLIENT, attributes, _context(parent), began_ns=began_ns).end()

    def stop(self, within_s: float) -> None:
        """Send what is left, and end; who sends to somebody that does not answer goes on by itself."""
        self._is_to_stop.set()
        self._has_stopped.wait(within_s)

    def _await_stop(self) -> None:
        self._is_to_stop.wait()
        self._provider.shutdown()
        self._has_stopped.set()

    def _begun(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        context: Context | None = None,
        links: Sequence[str] = (),
        began_ns: int | None = None,
    ) -> Recorded:
        span = self._tracer.start_span(
            name,
            context,
            trace.SpanKind[kind.name],
            _plain(attributes),
            [trace.Link(_of(link)) for link in links],
            began_ns,
        )
        return Recorded(span)


def collector_answers() -> bool:
    """Whether spans are taken where the environment says: none are sent."""
    return OTLPSpanExporter(timeout=ANSWERS_S).export(()) is SpanExportResult.SUCCESS


def _plain(attributes: Attributes) -> dict[str, str | int | float]:
    """Leave out what is None, and make plain words of our enumerations'."""
    given = {name: value for name, value in attributes.items() if value is not None}
    return {name: str(value) if isinstance(value, str) else value for name, value in given.items()}


def _context(parent: str | None) -> Context | None:
    """Return what a span is a child of where none is around it; None: of what is around."""
    if not parent or trace.get_current_span().get_span_context().is_valid:
        return None
    return W3C.extract({"traceparent": parent})


def _of(traceparent: str) -> trace.SpanContext:
    return trace.get_current_span(W3C.extract({"traceparent": traceparent})).get_span_context()


def _written(span: trace.Span) -> str | None:
    """Write a span's context as W3C does. Its `tracestate` is not kept."""
    written: dict[str, str] = {}
    W3C.inject(written, trace.set_span_in_context(span))
    return written.get("traceparent")
