"""A collector for trying traces: it prints the spans of each trace by name, parent and time.

python docs/monitoring/spans.py --port 4318
OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 onelane run

It needs `pip install 'onelane[otel]'`. A trace is printed once none of its spans has come for a while, and again when
more have: processes send them every five seconds, or every OTEL_BSP_SCHEDULE_DELAY milliseconds.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

LOOK_EVERY_S = 0.1
TRACES_MAX = 100
MS = 1e6
ROW = "{start:>10}  {took:>9}  {name:<34}  {parent:<22}  {process}\n"


class Span(NamedTuple):
    """What is printed of a span."""

    id: bytes
    parent_id: bytes
    name: str
    began_ns: int
    ended_ns: int
    process: str


class Traces:
    """Spans by their trace: of the newest traces."""

    def __init__(self) -> None:
        self._spans: dict[bytes, list[Span]] = defaultdict(list)
        self._newest: dict[bytes, float] = {}
        self._changing = Lock()

    def add(self, body: bytes) -> None:
        """Take what a process has sent."""
        with self._changing:
            for trace_id, span in spans_in(body):
                self._spans[trace_id].append(span)
                self._newest[trace_id] = time.monotonic()
            while len(self._spans) > TRACES_MAX:
                oldest = next(iter(self._spans))
                del self._spans[oldest]
                self._newest.pop(oldest, None)

    def take_quiet(self, quiet_s: float) -> dict[bytes, list[Span]]:
        """Return the traces that have grown, and of which nothing has come for a while."""
        with self._changing:
            until = time.monotonic() - quiet_s
            quiet = [trace_id for trace_id, at in self._newest.items() if at <= until]
            for trace_id in quiet:
                del self._newest[trace_id]
            return {trace_id: list(self._spans[trace_id]) for trace_id in quiet}


def spans_in(body: bytes) -> Iterator[tuple[bytes, Span]]:
    """Read a request of OTLP: each span, with its trace."""
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        about = {one.key: one.value for one in resource.resource.attributes}
        process = " ".join(
            str(getattr(about[name], kind))
            for name, kind in (("onelane.process", "string_value"), ("process.pid", "int_value"))
            if name in about
        )
        for scope in resource.scope_spans:
            for span in scope.spans:
                times = span.start_time_unix_nano, span.end_time_unix_nano
                yield span.trace_id, Span(span.span_id, span.parent_span_id, span.name, *times, process)


def rows_of(spans: list[Span]) -> Iterator[str]:
    """Write a trace down: each span below its parent, in the order in which they began."""
    by_id = {span.id: span for span in spans}
    first_ns = min(span.began_ns for span in spans)
    below: dict[bytes, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span.began_ns):
        below[span.parent_id if span.parent_id in by_id else b""].append(span)
    open_rows = [(span, 0) for span in reversed(below[b""])]
    yield ROW.format(start="start", took="took", name="span", parent="parent", process="process")
    while open_rows:
        span, depth = open_rows.pop()
        parent = by_id[span.parent_id].name if span.parent_id in by_id else "(not here)" if span.parent_id else "-"
        yield ROW.format(
            start=f"{(span.began_ns - first_ns) / MS:.1f} ms",
            took=f"{(span.ended_ns - span.began_ns) / MS:.1f} ms",
            name="  " * depth + span.name,
            parent=parent,
            process=span.process,
        )
        open_rows += [(one, depth + 1) for one in reversed(below[span.id])]


def serve(traces: Traces, port: int) -> ThreadingHTTPServer:
    """Take POST /v1/traces on the loopback address."""

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            traces.add(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log no request."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Collector)
    Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    """Print traces until interrupted."""
    options = argparse.ArgumentParser(description="Print the spans that are sent to http://127.0.0.1:PORT.")
    options.add_argument("--port", type=int, default=4318, help="default: 4318; 0: a free one, which is printed")
    options.add_argument("--quiet-s", type=float, default=6.0, help="how long to wait for more of a trace")
    chosen = options.parse_args()
    traces = Traces()
    server = serve(traces, chosen.port)
    sys.stdout.write(f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    while True:
        time.sleep(LOOK_EVERY_S)
        for trace_id, spans in traces.take_quiet(chosen.quiet_s).items():
            sys.stdout.write(f"\ntrace {trace_id.hex()}\n{''.join(rows_of(spans))}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
