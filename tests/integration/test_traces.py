"""One trace for a message, over the processes that it passes through, and whatever becomes of them."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from uuid import uuid4

import pytest

from onelane.bootstrap import Services
from onelane.bot import Turn
from onelane.channels import provider_of
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery
from onelane.dev.stack import PYTHON
from onelane.model import Author
from onelane.testing.fake_providers import FakeProviders
from onelane_web import create_app
from tests.collector import Collected, InMemory, collector, sending_to, trace_in_memory
from tests.conftest import DEADLINE_S, ROOT, Accept, RunWorker, eventually
from tests.outbound import fakes_of
from tests.outbound import sending_to as sending_to_fakes
from tests.processes import web_process, worker_process
from tests.rows import Rows

FAULTY = [*PYTHON, "tests.faulty_worker"]
TRACEPARENTS = "SELECT ordinal, traceparent FROM messages ORDER BY turn_seq, ordinal"
TOKEN = "0123456789abcdef0123456789abcdef"
SUPPORT = Channel(provider="telegram", secrets=[TOKEN], bot_token=f"123456:{TOKEN}")
WAY = {
    "POST /webhooks/support": "",
    "send support": "POST /webhooks/support",
    "process support": "send support",
    "handle": "process support",
    "settle support": "process support",
    "send telegram": "process support",
}
"""Each span of a message, and its parent."""


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> InMemory:
    return trace_in_memory(monkeypatch)


def say_it_back(turn: Turn) -> str:
    return f"you said {turn.message.text}"


def post(settings: Settings, port: int, channel: str, delivery: Delivery) -> int:
    """Deliver a message, as its provider would."""
    signed = provider_of(settings.channels[channel]).sign(f"http://127.0.0.1:{port}/webhooks/{channel}", delivery)
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", f"/webhooks/{channel}{signed.query}", signed.body, dict(signed.headers))
        return connection.getresponse().status
    finally:
        connection.close()


def parents(spans: list[Collected]) -> dict[str, str]:
    """Name each span's parent."""
    names = {span.id: span.name for span in spans}
    return {span.name: names.get(span.parent, "") for span in spans}


def test_a_message_and_its_reply_lie_with_what_their_trace_goes_on_with_and_a_stranger_makes_no_span(
    rows: Rows, services: Services, settings: Settings, run_worker: RunWorker, in_memory: InMemory
) -> None:
    delivery = Delivery(senders=("alice",), external_id="m1", text="hello")
    signed = provider_of(settings.channels["demo"]).sign("http://localhost/webhooks/demo", delivery)
    client = create_app(services).test_client()
    assert client.post("/webhooks/demo", data=signed.body, headers={"traceparent": "00-1-1-01"}).status_code == 401
    assert list(in_memory.spans) == []
    answer = client.post("/webhooks/demo", data=signed.body, headers=dict(signed.headers))
    assert answer.status_code == 202
    with run_worker(settings):
        eventually(lambda: rows.count("processed") == 1)
        eventually(lambda: any(span.name == "process demo" for span in in_memory.spans))
    stored = services.database.rows(TRACEPARENTS)
    span_ids = [row.traceparent.split("-")[2] for row in stored]
    assert {span.name for span in in_memory.spans} >= {
        "POST /webhooks/demo",
        "send demo",
        "receive demo",
        "process demo",
        "handle",
        "settle demo",
    }
    assert span_ids == [in_memory.id_of("send demo"), in_memory.id_of("process demo")]
    assert len(in_memory.traces) == 1


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[FakeProviders]:
    with fakes_of({"support": SUPPORT}, tmp_path) as fakes:
        yield fakes


@pytest.fixture
def to_fakes(settings: Settings, fakes: FakeProviders) -> Settings:
    changes = {"handler": "tests.integration.test_traces:say_it_back", "lock_ttl_s": 1}
    return sending_to_fakes(fakes, {"support": SUPPORT}, settings).model_copy(update=changes)


@pytest.mark.slow
def test_one_trace_reaches_from_the_webhook_to_the_providers_answer_over_a_killed_worker_and_a_redis_that_forgets(
    services: Services, to_fakes: Settings, tmp_path: Path
) -> None:
    text, sender, name = f"canary{uuid4().hex}", str(uuid4().int % 10**12), f"canary{uuid4().hex}"
    delivery = Delivery(
        senders=(sender,),
        external_id="1",
        text=text,
        route={"chat_id": int(sender)},
        author=Author(id=sender, name=name),
    )
    with collector() as (collected, variables):
        with web_process(to_fakes, tmp_path, **variables) as port:
            assert post(to_fakes, port, "support", delivery) == 200
        dying = worker_process(to_fakes, program=FAULTY, handler=to_fakes.handler, fault="kill before settle_turns 1")
        with dying as doomed:
            assert doomed.wait(DEADLINE_S) == -signal.SIGKILL
        services.lanes.client.flushall()
        with worker_process(to_fakes, handler=to_fakes.handler, **variables):
            eventually(lambda: collected.named("send telegram"))
            eventually(lambda: set(parents(collected.spans)) >= set(WAY))
    spans = [span for span in collected.spans if not span.name.startswith("receive ")]
    assert parents(spans) == WAY
    assert len({span.trace for span in collected.spans}) == 1
    [sent] = collected.named("send telegram")
    assert (sent.kind, sent.attributes["onelane.outcome"]) == ("client", "accepted")
    [turn] = collected.named("process support")
    assert len({span.process for span in spans}) == 2
    assert turn.attributes["onelane.wait_s"] > 0
    assert [word for word in (text, sender, name, TOKEN) if any(word.encode() in one for one in collected.bodies)] == []


@pytest.mark.slow
def test_a_collector_that_never_answers_holds_up_neither_a_message_nor_an_end(
    rows: Rows, services: Services, settings: Settings, accept: Accept
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        variables = sending_to(silent.getsockname()[1])
        with worker_process(settings, handler="tests.integration.test_traces:say_it_back", **variables) as worker:
            for number in range(3):
                accept(f"user {number}")
            eventually(lambda: rows.count("processed") == 3)
            began = time.monotonic()
            worker.ask_to_stop()
            assert worker.wait(DEADLINE_S) == 0
    assert time.monotonic() - began < 10, "the exporter alone would wait for 10 s"


@pytest.mark.slow
def test_the_collector_of_the_documents_prints_the_spans_by_name_parent_and_time(
    services: Services, to_fakes: Settings, tmp_path: Path
) -> None:
    script = [sys.executable, str(ROOT / "docs" / "monitoring" / "spans.py"), "--port", "0", "--quiet-s", "1"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as printing, ExitStack() as stack:
        stack.callback(printing.terminate)
        assert printing.stdout
        variables = sending_to(int(printing.stdout.readline().rpartition(":")[2]))
        port = stack.enter_context(web_process(to_fakes, tmp_path, **variables))
        stack.enter_context(worker_process(to_fakes, handler=to_fakes.handler, **variables))
        delivery = Delivery(senders=("42",), external_id="1", text="hello", route={"chat_id": 42})
        assert post(to_fakes, port, "support", delivery) == 200
        missing = {f"ms {name} {parent or '-'} " for name, parent in WAY.items()}
        while missing:
            line = " ".join(printing.stdout.readline().split())
            missing = {row for row in missing if row not in line}
