import json
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import pytest

from onelane.channels import provider_of
from onelane.channels.sender import OnUnknown
from onelane.channels.sending import Outgoing, Piece, Request, Sign, SignKind
from onelane.channels.twilio.codes import CODES
from onelane.channels.verdicts import Outcome, Response, Scope, Unsendable, Verdict, Word
from onelane.config import Channel
from onelane.errors import ConfigError
from onelane.model import Attachment, AttachmentKind, Button, JsonObject
from tests.unit.test_sending import sender_of

TWILIO = sender_of("twilio")
KEY = UUID(int=16)
SID, ACCOUNT = f"SM{'1' * 32}", f"AC{'0' * 32}"
ADDRESS = f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
CALLBACK = "https://bot.example/webhooks/support"
USER, OURS = "whatsapp:+4915550100", "whatsapp:+15550100"
SINCE = datetime(2026, 11, 26, 12, tzinfo=UTC)


def outgoing(
    piece: Piece | str = "hello", to: str = USER, route: JsonObject | None = None, callback_url: str | None = CALLBACK
) -> Outgoing:
    said = Piece(text=piece) if isinstance(piece, str) else piece
    return Outgoing(KEY, (to,), said, {"from": OURS} if route is None else route, callback_url=callback_url)


def form_of(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


def judged(status: int, content: Any) -> Verdict:
    return TWILIO.judge(outgoing(), Response(status, {}, json.dumps(content).encode()))


def error(code: Any) -> JsonObject:
    return {"code": code, "message": "no", "more_info": "https://www.twilio.com/docs/errors", "status": 400}


def test_a_text_is_one_form_whose_statuses_bring_the_key_back() -> None:
    request = TWILIO.request(outgoing())
    login = b64encode(f"{ACCOUNT}:secret-of-sixteen-letters".encode()).decode()
    assert (request.name, request.method, request.url) == ("Messages", "POST", ADDRESS)
    assert request.headers == {
        "Content-Type": "application/x-www-form-urlencoded",
        "Authorization": f"Basic {login}",
    }
    assert form_of(request) == {
        "To": USER,
        "From": OURS,
        "Body": "hello",
        "StatusCallback": f"{CALLBACK}?reply={KEY}",
    }


def test_an_sms_ends_at_twilio_before_nobody_expects_it() -> None:
    sms = outgoing(to="+4915550100", route={"from": "+15550199"})
    assert form_of(TWILIO.request(sms))["ValidityPeriod"] == "600"
    assert form_of(sender_of("twilio", validity_period_s=36_000).request(sms))["ValidityPeriod"] == "36000"
    with pytest.raises(ConfigError, match="validity_period_s"):
        provider_of(Channel(provider="twilio", secrets=("sixteen-letters.",), validity_period_s=36_001))


@pytest.mark.parametrize("url", [None, "https://my_host.example/webhooks/x", "nonsense"])
def test_an_address_that_twilio_refuses_is_not_given(url: str | None) -> None:
    assert "StatusCallback" not in form_of(TWILIO.request(outgoing(callback_url=url)))


def test_the_number_is_the_one_written_to_else_the_settings() -> None:
    service, sms = f"MG{'2' * 32}", "+4915550100"
    both = sender_of("twilio", from_number="+15550199", messaging_service_sid=service)
    assert form_of(both.request(outgoing()))["From"] == OURS
    assert form_of(both.request(outgoing(to=sms, route={})))["From"] == "+15550199"
    chosen = form_of(both.request(outgoing(route={})))
    assert (chosen["To"], chosen["MessagingServiceSid"]) == (USER, service)
    assert "From" not in chosen


def test_both_addresses_are_of_one_kind() -> None:
    out = Outgoing(KEY, ("+4915550100", USER), Piece(text="x"), {"from": OURS})
    assert form_of(TWILIO.request(out))["To"] == USER
    for to, ours in ((USER, "+15550199"), ("messenger:7", OURS)):
        with pytest.raises(Unsendable) as refused:
            TWILIO.request(outgoing(to=to, route={"from": ours}))
        assert refused.value.word is Word.NO_ROUTE


def test_an_api_key_logs_in_in_place_of_the_token() -> None:
    key = f"SK{'3' * 32}"
    request = sender_of("twilio", api_key=key, api_secret="secret-of-the-key").request(outgoing())
    assert request.headers["Authorization"] == f"Basic {b64encode(f'{key}:secret-of-the-key'.encode()).decode()}"


@pytest.mark.parametrize(
    ("piece", "fields"),
    [
        (Piece(media=(Attachment(url="https://bot.example/1.png"),)), {"MediaUrl": "https://bot.example/1.png"}),
        (
            Piece(text="look", media=(Attachment(url="https://bot.example/1.png", kind=AttachmentKind.IMAGE),)),
            {"Body": "look", "MediaUrl": "https://bot.example/1.png"},
        ),
        (
            Piece(template={"ContentSid": "HX1", "ContentVariables": {"1": "Ann"}, "To": "x"}),
            {"ContentSid": "HX1", "ContentVariables": '{"1": "Ann"}'},
        ),
        (Piece(text="?", buttons=(Button(id="y", title="Yes"),)), {"Body": "?\n\n1. Yes"}),
        (Piece(text="x", raw={"SmartEncoded": True, "To": "y"}), {"Body": "x", "SmartEncoded": "true"}),
    ],
    ids=["a file", "a picture", "a template", "buttons", "raw"],
)
def test_each_content_has_its_form(piece: Piece, fields: dict[str, str]) -> None:
    [only] = TWILIO.pieces(piece)
    assert form_of(TWILIO.request(outgoing(only, callback_url=None))) == {"To": USER, "From": OURS, **fields}


@pytest.mark.parametrize("said", [Piece(media=(Attachment(id="7"),)), Piece(template={"name": "x"})])
def test_what_has_no_form_is_refused_at_commit(said: Piece) -> None:
    with pytest.raises(Unsendable):
        TWILIO.pieces(said)


def test_queued_is_accepted() -> None:
    assert judged(201, {"sid": SID, "status": "queued"}) == Verdict(Outcome.ACCEPTED, provider_id=SID)


@pytest.mark.parametrize("content", [{}, {"sid": None}, {"sid": ""}, {"sid": 7}, [], error(21610)])
def test_a_success_without_a_sid_is_unknown(content: Any) -> None:
    assert judged(201, content).outcome is Outcome.UNKNOWN


ROWS = [
    ([20429, 63018, 63017], Outcome.NOT_NOW, Word.LIMIT, Scope.CHANNEL),
    ([63016], Outcome.NEVER, Word.WINDOW_CLOSED, Scope.USER),
    ([21610], Outcome.NEVER, Word.OPTED_OUT, Scope.USER),
    ([21211, 21614, 30003, 30005, 30006, 63024], Outcome.NEVER, Word.UNREACHABLE, Scope.USER),
    ([21617], Outcome.NEVER, Word.TOO_LONG, Scope.USER),
    ([63021, 63013, 30007], Outcome.NEVER, Word.BAD_CONTENT, Scope.USER),
    ([20003, 20404], Outcome.BROKEN, Word.DENIED, Scope.CHANNEL),
    ([63007, 63008], Outcome.BROKEN, Word.ACCOUNT, Scope.CHANNEL),
]


def test_the_rows_are_the_whole_table() -> None:
    assert {str(code) for codes, *_ in ROWS for code in codes} == set(CODES)


@pytest.mark.parametrize(("codes", "outcome", "word", "scope"), ROWS, ids=lambda value: str(value)[:20])
def test_each_code_has_its_class(codes: list[int], outcome: Outcome, word: Word, scope: Scope) -> None:
    for code in codes:
        found = judged(400, error(code))
        assert (found.outcome, found.word, found.scope, found.code) == (outcome, word, scope, str(code))
        assert TWILIO.word_of(str(code)) is word
    assert TWILIO.word_of("1") is None


@pytest.mark.parametrize(
    ("status", "content"),
    [(500, {}), (503, "down"), (400, error(99_999)), (400, error(None)), (302, error(21610)), (401, {})],
)
def test_anything_else_is_unknown(status: int, content: Any) -> None:
    assert judged(status, content).outcome is Outcome.UNKNOWN


def test_too_many_requests_wait_as_long_as_it_says() -> None:
    for body in (b"", json.dumps(error(20429)).encode()):
        verdict = TWILIO.judge(outgoing(), Response(429, {"retry-after": "3"}, body))
        assert (verdict.outcome, verdict.scope, verdict.wait_s) == (Outcome.NOT_NOW, Scope.CHANNEL, 3)


def message(sid: str = SID, body: str = "hello", after_s: float = 1, **more: Any) -> JsonObject:
    created = format_datetime(SINCE + timedelta(seconds=after_s))
    sent = {"sid": sid, "body": body, "date_created": created, "date_sent": None, "status": "queued"}
    return {**sent, "direction": "outbound-api", "error_code": None, **more}


def looked_up(
    *pages: Sequence[JsonObject] | Response, out: Outgoing | None = None, others: Sequence[str] = ()
) -> tuple[list[Request], Verdict]:
    """Answer each request with the next page. The user's other replies have all said "another"."""
    steps = TWILIO.look_up(out or outgoing(), SINCE, dict.fromkeys(others, "another"))
    assert steps is not None
    requests = [next(steps)]
    for number, page in enumerate(pages, 1):
        following = f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json?Page={number}" if number < len(pages) else None
        content = json.dumps({"messages": page, "next_page_uri": following} if not isinstance(page, Response) else {})
        try:
            requests.append(steps.send(page if isinstance(page, Response) else Response(200, {}, content.encode())))
        except StopIteration as end:
            return requests, end.value
    raise AssertionError("the look-up does not end")


def test_the_list_of_messages_is_asked_by_both_addresses() -> None:
    [request], _verdict = looked_up([])
    assert (request.name, request.method, request.body) == ("Messages.list", "GET", b"")
    assert request.url.partition("?")[0] == ADDRESS
    assert dict(parse_qsl(urlsplit(request.url).query)) == {"To": USER, "From": OURS, "PageSize": "100"}
    assert request.headers["Authorization"].startswith("Basic ")


ABSENT = Verdict(Outcome.NOT_NOW, Word.ABSENT)
UNKNOWN = Verdict(Outcome.UNKNOWN, Word.UNCLEAR)
THERE = Verdict(Outcome.ACCEPTED, provider_id=SID)


@pytest.mark.parametrize(
    ("pages", "others", "verdict"),
    [
        ([[]], [], ABSENT),
        ([[message()]], [], THERE),
        ([[message(body="hello\n")]], [], THERE),
        ([[message(after_s=-29)]], [], THERE),
        ([[message(after_s=-31)]], [], ABSENT),
        ([[message()]], [SID], ABSENT),
        ([[message("SM9"), message()]], [SID], Verdict(Outcome.ACCEPTED, provider_id="SM9")),
        ([[message("SM9"), message()]], [], THERE),
        ([[message(body="another")]], [], UNKNOWN),
        ([[message("SM9", body="another")]], ["SM1"], ABSENT),
        ([[message("SM9", body="another"), message("SM8", body="changed")]], ["SM1"], UNKNOWN),
        ([[message("SM9", body="another"), message()]], ["SM1"], THERE),
        ([[message(body="another", direction="inbound")]], [], ABSENT),
        ([[message(date_created="soon")]], [], UNKNOWN),
        ([[message(status="failed", error_code=21610)]], [], Verdict(Outcome.NEVER, Word.OPTED_OUT, "21610", SID)),
        ([[message(status="undelivered")]], [], Verdict(Outcome.NEVER, Word.UNREACHABLE, "", SID)),
        ([[message(sid="")]], [], UNKNOWN),
        ([[message("SM9", after_s=9)], [message()]], ["SM9"], THERE),
        ([[message("SM9", after_s=9)], []], ["SM9"], ABSENT),
        ([[message("SM9", after_s=-99)], [message()]], [], ABSENT),
        ([[message("SM9")]] * 5, ["SM9"], ABSENT),
        ([[message("SM9")]] * 6, ["SM9"], UNKNOWN),
        ([Response(500)], [], Verdict(Outcome.UNKNOWN, Word.UNCLEAR, "500")),
        ([Response(200, {}, b"{}")], [], Verdict(Outcome.UNKNOWN, Word.UNCLEAR, "200")),
    ],
    ids=[
        "empty", "there", "trimmed", "within the skew", "older", "another reply's", "two equal texts, one known",
        "sent twice", "a text that nobody knows", "another reply's copy",
        "that, and a text that nobody knows", "that, and it", "the user's own", "no time", "refused since",
        "undelivered",
        "without a sid", "second page", "not on two pages", "ends at an older page", "five pages", "six pages",
        "no answer", "no list",
    ],
)  # fmt: skip
def test_a_look_up_proves_presence_or_absence_or_nothing(pages: list[Any], others: list[str], verdict: Verdict) -> None:
    _requests, found = looked_up(*pages, others=others)
    assert found == verdict


def test_without_addresses_nobody_can_be_asked() -> None:
    assert TWILIO.look_up(outgoing(route={}), SINCE, {}) is None


def test_a_next_page_elsewhere_is_not_asked() -> None:
    steps = TWILIO.look_up(outgoing(), SINCE, {})
    assert steps is not None
    next(steps)
    content = {"messages": [], "next_page_uri": "//elsewhere.example/2010-04-01"}
    with pytest.raises(StopIteration) as end:
        steps.send(Response(200, {}, json.dumps(content).encode()))
    assert end.value.value.outcome is Outcome.UNKNOWN


def test_typing_is_off_until_it_is_asked_for_and_whatsapps_alone() -> None:
    sign = Sign(SignKind.TYPING, SID, (USER,))
    assert TWILIO.presence(sign) is None
    shows = sender_of("twilio", typing=True)
    request = shows.presence(sign)
    assert request
    assert (request.method, request.url) == ("POST", "https://messaging.twilio.com/v2/Indicators/Typing.json")
    assert form_of(request) == {"channel": "whatsapp", "messageId": SID}
    assert shows.presence(Sign(SignKind.TYPING, SID, ("+4915550100",))) is None
    assert shows.presence(Sign(SignKind.SEEN, SID, (USER,))) is None


def test_the_window_is_whatsapps_and_an_unknown_reply_is_asked_for() -> None:
    assert [TWILIO.window_s((one,)) for one in (USER, "+4915550100")] == [86_400, None]
    assert TWILIO.on_unknown is OnUnknown.ASK
