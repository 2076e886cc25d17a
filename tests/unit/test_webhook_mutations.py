"""Every webhook that any provider may send, changed at random and signed: it is never an error of ours, never lost."""

import json
import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import count
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, cast
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from hypothesis import given, reject
from hypothesis import strategies as st
from structlog.testing import capture_logs

from onelane.bootstrap import Services
from onelane.channels import Inbound
from onelane.channels.bodies import repaired
from onelane.config import Channel, Settings
from onelane.deliveries import Accepted
from onelane.inbox.items import Line, item_of
from onelane.telemetry.counters import counters
from onelane.telemetry.numbers import IGNORED
from onelane.testing.conformance.case import FORM, JSON, URL, Case, cases
from onelane_web import create_app
from tests.conftest import examples_of
from tests.in_memory import KeptRequests, KeptStatuses, receiving
from tests.payloads import ON_THE_NET, channel_of

HERE, PATH = URL.rsplit("/webhooks", 1)[0], "/webhooks/support"
POSTED = [case for case in cases() if not case.is_get]
NUMBERS = count(1)
EXAMPLES = 50 if os.environ.get("HYPOTHESIS_PROFILE") is None else None
MARK = "w1sh"
"""Stands in every planted text: no log line has it."""


class StrictIntake:
    """Takes only what Postgres could store, in JSON as it reads it."""

    def __init__(self) -> None:
        self.taken: list[Line] = []

    def outcomes(self, _channel: str, lines: Sequence[Line], _note: object, **_how: object) -> list[Accepted]:
        for line in lines:
            item = item_of(line)
            assert json.dumps(item, allow_nan=False)
            assert repaired(item) == (item, ())
            assert all(name.strip() for name in line.senders)
            assert line.external_id
        self.taken += lines
        return [Accepted(message_id=UUID(int=1), user_id=UUID(int=1), seq=1, duplicate=False, is_waiting=True)] * len(
            lines
        )


class Service(NamedTuple):
    """The web of one provider's channel, and what came in."""

    client: FlaskClient
    intake: StrictIntake
    statuses: KeptStatuses
    quarantine: KeptRequests
    signed: Callable[[Inbound], Inbound]

    def post(self, unsigned: Inbound) -> int:
        """Post a request with its signature."""
        try:
            request = self.signed(unsigned)
        except UnicodeDecodeError:
            reject()  # whoever signs texts cannot sign it
        headers = {**request.headers, "Content-Type": request.content_type}
        return self.client.post(request.url.removeprefix(HERE), data=request.body, headers=headers).status_code

    def kept(self) -> int:
        """Count what came in, and forget it."""
        ignored = sum(number for field, number in counters.take().items() if field.startswith(IGNORED.name))
        kept = ignored + len(self.intake.taken) + len(self.statuses.stored) + len(self.quarantine.kept)
        for found in (self.intake.taken, self.statuses.stored, self.quarantine.kept):
            cast("list[Any]", found).clear()
        return kept


@cache
def service(provider: str) -> Service:
    adapter, signed = channel_of(provider)
    intake, statuses, quarantine = StrictIntake(), KeptStatuses(), KeptRequests()
    channels = {"support": Channel(provider=provider, public_url=HERE)}
    settings = Settings(database_url="postgresql://", redis_url="redis://", channels=channels)
    by_channel = {"support": adapter}
    services = SimpleNamespace(
        settings=settings,
        providers=by_channel,
        database=None,
        receiving=receiving(by_channel, intake, statuses, quarantine),
        lanes=SimpleNamespace(client=SimpleNamespace(set=lambda *_, **__: None)),
    )
    return Service(create_app(cast("Services", services)).test_client(), intake, statuses, quarantine, signed)


ODD_VALUES: Final[Sequence[Any]] = (
    *(None, True, False, 0, -1, 2**63, 10**60, 1.5, "", " ", [], {}, [[]], "0", "-1", "9" * 400, "NaN"),
    *(f"{MARK}\0", f"{MARK}\ud800", MARK * 20_000, {MARK: MARK}, [MARK], f"{MARK}:{MARK}", "../..", "\u202e"),
    *({f"{MARK}\0": MARK}, {f"{MARK}\ud800": MARK}),
)
ODD = st.sampled_from(ODD_VALUES).map(deepcopy)
JSON_KEY: Final = "response_json"
"""Holds JSON in a text."""
ODD_BYTES = (b"", b"\0", b"\xff", b'"', b"}", b"NaN", b"[" * 5_000, b"%00", b"\\ud800", b'{"a":1,"a":2}')


def places(value: Any) -> list[tuple[Any, Any]]:
    """List each container in a JSON value with each of its keys."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, one in inner:
        found += [(value, key), *places(one)]
    return found


@st.composite
def changed_json(draw: st.DrawFn, text: bytes) -> bytes:
    """Put odd values into a body, take some away, double some; the JSON in its texts is changed as JSON is."""
    body = json.loads(text)
    for _ in range(draw(st.integers(0, 3))):
        if not (found := places(body)):
            break
        inner = [(holder, key) for holder, key in found if key == JSON_KEY and is_object(holder[key])]
        holder, key = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.sampled_from(["odd", "gone", "doubled", *(["json"] if inner else [])])):
            case "json":
                holder, key = inner[0]
                holder[key] = draw(changed_json(holder[key].encode())).decode()
            case "odd":
                holder[key] = draw(ODD)
            case "gone":
                del holder[key]
            case _:
                holder.append(holder[key]) if isinstance(holder, list) else holder.update({f"{key}2": holder[key]})
    return json.dumps(body).encode()


def is_object(value: Any) -> bool:
    """Whether it is a text with a JSON object."""
    return isinstance(value, str) and value.startswith('{"')


@st.composite
def changed_form(draw: st.DrawFn, text: bytes) -> bytes:
    """Put odd values into a form, take some away, double some; the JSON in it is changed as JSON is."""
    pairs = parse_qsl(text.decode(), keep_blank_values=True)
    for _ in range(draw(st.integers(0, 3))):
        if not pairs:
            break
        nr = draw(st.integers(0, len(pairs) - 1))
        name, value = pairs[nr]
        match draw(st.sampled_from(["odd", "gone", "doubled", "json"])):
            case "gone":
                del pairs[nr]
            case "doubled":
                pairs.append((name, str(draw(ODD))))
            case "json" if is_object(value):
                pairs[nr] = (name, draw(changed_json(value.encode())).decode())
            case _:
                pairs[nr] = (name, str(draw(ODD)))
    return urlencode(pairs, errors="surrogatepass").encode()


@st.composite
def changed_bytes(draw: st.DrawFn, text: bytes) -> bytes:
    """Cut a body, or put odd bytes into it."""
    at = draw(st.integers(0, len(text)))
    odd = draw(st.sampled_from(ODD_BYTES))
    return text[:at] + odd + text[at + draw(st.integers(0, 20)) :]


@st.composite
def changed(draw: st.DrawFn, provider: str) -> Inbound:
    case: Case = draw(st.sampled_from([case for case in POSTED if case.provider == provider]))
    request = case.unsigned()
    change = changed_form if request.content_type == FORM else changed_json
    try:
        json.loads(request.body) if change is changed_json else request.body.decode()
    except ValueError:
        change = changed_bytes
    body = draw(st.one_of(change(request.body), change(request.body), changed_bytes(request.body)))
    headers = {**request.headers, "webhook-id": f"m{next(NUMBERS)}"} if provider == "standard" else request.headers
    return replace(request, body=body, headers=headers)


@pytest.mark.parametrize("provider", ON_THE_NET)
def test_whatever_is_signed_is_taken_or_kept_or_ignored_and_never_an_error_of_ours(provider: str) -> None:
    web = service(provider)
    web.kept()

    @examples_of(EXAMPLES)
    @given(changed(provider))
    def check(request: Inbound) -> None:
        with capture_logs() as lines:
            status = web.post(request)
        kept = web.kept()
        assert 200 <= status < 300 or 400 <= status < 500, status
        assert status >= 400 or kept
        assert MARK not in str(lines)
        assert not any(line["event"] in {"request_failed", "adapter_failed"} for line in lines)

    check()


@pytest.mark.parametrize("odd", ODD_VALUES, ids=lambda value: ascii(value)[:20])
def test_what_is_odd_in_json_inside_a_text_is_taken_or_kept_too(odd: Any) -> None:
    """It was read after the text around it was mended, and failed its whole batch."""
    web = service("meta")
    bodies = [json.loads(case.unsigned().body) for case in POSTED if JSON_KEY in str(case.request)]
    forms = [(body, holder) for body in bodies for holder, key in places(body) if key == JSON_KEY]
    assert forms
    for body, holder in forms:
        holder[JSON_KEY] = json.dumps({"odd": odd})
        web.kept()
        assert web.post(Inbound(URL, {}, JSON, json.dumps(body).encode())) == 200
        assert web.kept()


@pytest.mark.parametrize("provider", ON_THE_NET)
@examples_of(EXAMPLES)
@given(data=st.data())
def test_whatever_is_not_signed_is_refused_and_nothing_of_it_is_kept(provider: str, data: st.DataObject) -> None:
    web = service(provider)
    request = data.draw(changed(provider))
    web.kept()
    headers = {**request.headers, "Content-Type": request.content_type}
    assert 400 <= web.client.post(PATH, data=request.body, headers=headers).status_code < 500
    assert web.kept() == 0


@pytest.mark.parametrize("case", POSTED, ids=lambda case: case.name)
def test_what_a_case_ignores_is_counted_by_its_name(case: Case) -> None:
    ignored = {item["what"] for item in case.expected.get("items", ()) if item["type"] == "ignored"}
    assert ignored <= set(IGNORED.read({}))
