"""Files that a bot sends by their bytes: what each provider gets, and that nothing is uploaded twice."""

import json
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from email import message_from_bytes
from typing import Any, Final
from uuid import UUID, uuid4

import httpx2
import pytest

from onelane.channels.sender import Sender
from onelane.channels.sending import FilePart, Outgoing, Piece, Request, Uploading
from onelane.channels.verdicts import Outcome, Response, Unsendable, Verdict, Word, unknown
from onelane.errors import StoreUnavailable
from onelane.model import Attachment, AttachmentKind
from onelane.outbox.reply import Deed
from tests.shipping import KeptRecords, PlainSender, Trip, waiting
from tests.unit.test_sending import SENDERS, outgoing

FILE: Final = UUID(int=7)
PHOTO: Final = Attachment(file=FILE, kind=AttachmentKind.IMAGE, name="a.png", content_type="image/png", size=5)
LETTER: Final = Attachment(file=FILE, kind=AttachmentKind.FILE, name='l"e\nt.pdf', content_type="application/pdf")
DATA: Final = b"\0\r\n--\xff"


def parts_of(request: Request) -> dict[str, tuple[bytes, str, str | None]]:
    """Read a form with a file: each part's bytes, type and file name."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    found = {}
    for part in message_from_bytes(head + request.body).walk():
        if name := part.get_param("name", header="content-disposition"):
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found[str(name)] = (content, part.get_content_type(), part.get_filename())
    return found


def uploaded(name: str, described: Attachment, *answers: Response) -> tuple[list[Request], Attachment | Verdict]:
    """Hand a file to a provider that answers so."""
    steps = SENDERS[name].upload(described, DATA, outgoing(name, Piece(media=(described,))))
    assert steps is not None
    requests, given = [next(steps)], iter(answers)
    while True:
        try:
            requests.append(steps.send(next(given)))
        except StopIteration as ended:
            return requests, ended.value


def told(content: Any, status: int = 200) -> Response:
    return Response(status, {}, json.dumps(content).encode())


def test_telegram_gets_the_bytes_with_the_message() -> None:
    piece = Piece(text="look", media=(PHOTO,), raw={"has_spoiler": True})
    assert SENDERS["telegram"].upload(PHOTO, DATA, outgoing("telegram", piece)) is None
    request = SENDERS["telegram"].request(outgoing("telegram", piece, files={FILE: DATA}))
    assert request.url.endswith("/sendPhoto")
    assert parts_of(request) == {
        "caption": (b"look", "text/plain", None),
        "has_spoiler": (b"true", "text/plain", None),
        "chat_id": (b"5", "text/plain", None),
        "photo": (DATA, "image/png", "a.png"),
    }


def test_a_files_name_and_type_write_no_line_of_the_form() -> None:
    odd = LETTER.model_copy(update={"content_type": "a/b\r\nX: y"})
    head = FilePart("document", odd, DATA).head()
    assert head.splitlines()[0] == 'Content-Disposition: form-data; name="document"; filename="l_e_t.pdf"'
    assert head.splitlines()[1:] == ["Content-Type: application/octet-stream", ""]


def test_standard_gets_the_bytes_in_the_body() -> None:
    assert SENDERS["standard"].upload(PHOTO, DATA, outgoing("standard", Piece(media=(PHOTO,)))) is None
    request = SENDERS["standard"].request(outgoing("standard", Piece(media=(PHOTO,)), files={FILE: DATA}))
    [attachment] = json.loads(request.body)["attachments"]
    assert b64decode(attachment.pop("data")) == DATA
    assert attachment == {"kind": "image", "name": "a.png", "content_type": "image/png", "size": 5}


def test_meta_gets_the_bytes_before_the_message() -> None:
    [request], found = uploaded("meta", PHOTO, told({"id": "77"}))
    assert request.url.endswith("/100/media")
    assert parts_of(request) == {
        "messaging_product": (b"whatsapp", "text/plain", None),
        "type": (b"image/png", "text/plain", None),
        "file": (DATA, "image/png", "a.png"),
    }
    assert isinstance(found, Attachment)
    assert (found.id, found.file, found.kind) == ("77", None, AttachmentKind.IMAGE)
    message = json.loads(SENDERS["meta"].request(outgoing("meta", Piece(media=(found,)))).body)
    assert message["image"] == {"id": "77"}


SLACKS: Final = "https://files.slack.com/upload/v1/x"


def test_slack_gets_the_bytes_at_the_address_that_it_gives() -> None:
    given = told({"ok": True, "upload_url": SLACKS, "file_id": "F1"})
    complete = told({"ok": True, "files": [{"id": "F1", "permalink": "https://t.slack.com/files/F1"}]})
    requests, image = uploaded("slack", PHOTO, given, Response(200), complete)
    assert [request.name for request in requests] == [
        "files.getUploadURLExternal",
        "files.upload",
        "files.completeUploadExternal",
    ]
    assert requests[0].body == b"filename=a.png&length=6"
    assert (requests[1].url, requests[1].body, "Authorization" in requests[1].headers) == (SLACKS, DATA, False)
    assert json.loads(requests[2].body) == {"files": [{"id": "F1", "title": "a.png"}]}
    assert isinstance(image, Attachment)
    assert (image.id, image.file) == ("F1", None)
    _, letter = uploaded("slack", LETTER, given, Response(200), complete)
    assert isinstance(letter, Attachment)
    assert (letter.url, letter.file) == ("https://t.slack.com/files/F1", None)


@pytest.mark.parametrize("address", ["https://files.slack.com.evil.example/x", "http://files.slack.com/x", "//[", 7])
def test_bytes_go_nowhere_else(address: Any) -> None:
    requests, found = uploaded("slack", PHOTO, told({"ok": True, "upload_url": address, "file_id": "F1"}))
    assert len(requests) == 1
    assert isinstance(found, Verdict)
    assert found.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("name", "answers", "outcome"),
    [
        ("meta", [told({"error": {"code": 190}}, 401)], Outcome.BROKEN),
        ("meta", [told({"error": {"code": 131053}}, 400)], Outcome.NEVER),
        ("meta", [told({}, 200)], Outcome.UNKNOWN),
        ("meta", [told({}, 500)], Outcome.UNKNOWN),
        ("slack", [told({"ok": False, "error": "invalid_auth"})], Outcome.BROKEN),
        ("slack", [told({"ok": False, "error": "missing_scope"})], Outcome.NEVER),
        ("slack", [Response(429, {"retry-after": "7"})], Outcome.NOT_NOW),
        ("slack", [told({"ok": True, "upload_url": SLACKS, "file_id": "F1"}), Response(500)], Outcome.UNKNOWN),
    ],
)
def test_what_refuses_a_file_is_judged_as_what_refuses_a_reply(name: str, answers: Any, outcome: Outcome) -> None:
    _, found = uploaded(name, PHOTO, *answers)
    assert isinstance(found, Verdict)
    assert found.outcome is outcome


def test_twilio_says_at_once_that_it_takes_no_bytes() -> None:
    with pytest.raises(Unsendable, match="media must have an address: Twilio fetches it"):
        SENDERS["twilio"].pieces(Piece(media=(PHOTO,)))
    for name in ("meta", "slack", "telegram", "standard"):
        assert SENDERS[name].pieces(Piece(media=(PHOTO,)))[0].media == (PHOTO,)


# on its way


class UploadingSender(PlainSender):
    """Takes files at an address of their own; or their bytes with the reply."""

    def __init__(self, *, takes_along: bool = False) -> None:
        super().__init__(self.take_any)
        self.uploads = not takes_along  # type: ignore[misc]
        self.before: Callable[[str], None] = lambda _: None
        self.answers: list[httpx2.Response | Exception] = []

    async def take_any(self, request: httpx2.Request) -> httpx2.Response:
        self.before(request.url.path)
        self.taken.append(f"{request.url.path} {request.content.decode()}")
        if self.answers and request.url.path == "/files":
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return httpx2.Response(200, json={"id": f"p{len(self.taken)}"})

    def upload(self, described: Attachment, data: bytes, out: Outgoing) -> Uploading | None:
        return self._uploading(described, data) if self.uploads else None

    def _uploading(self, described: Attachment, data: bytes) -> Uploading:
        response = yield Request("files", "POST", "http://provider.invalid/files", {}, data)
        if not response.is_success:
            return unknown(response.status)
        return described.model_copy(update={"id": response.content()["id"], "file": None})

    def request(self, out: Outgoing) -> Request:
        said = {"ids": [one.id for one in out.piece.media], "data": [data.decode() for data in out.files.values()]}
        return Request.json("send", "http://provider.invalid/send", said)


def a_trip(sender: Sender, **kept: Any) -> Trip:
    """Send one reply with a file."""
    file_id = uuid4()
    reply = waiting(attachments=(Attachment(file=file_id),))
    records = KeptRecords(reply)
    records.kept = {file_id: {"uploaded": None, "data": b"bytes", **kept}} if kept.pop("is_there", True) else {}
    assert isinstance(sender, PlainSender)
    return Trip(sender=sender, records=records)


def test_a_file_is_uploaded_under_no_mark_then_the_reply_is_marked_and_sent() -> None:
    """Whoever dies of an upload leaves no doubt: the reply was certainly not sent."""
    sender = UploadingSender()
    trip = a_trip(sender)
    sender.before = lambda path: marks.append((path, [fate.counts for fate in trip.records.fates]))
    marks: list[tuple[str, list[bool]]] = []
    trip.run()
    assert sender.taken == ["/files bytes", '/send {"ids": ["p1"], "data": []}']
    assert marks == [("/files", [False]), ("/send", [False])], "the mark is handed back before the upload"
    assert [fate.deed for fate in trip.records.fates] == [Deed.NOT_NOW, Deed.ACCEPTED]
    [kept] = trip.records.kept.values()
    assert (kept["uploaded"]["id"], kept["data"]) == ("p1", None)


def test_what_was_uploaded_before_is_not_uploaded_again() -> None:
    sender = UploadingSender()
    trip = a_trip(sender, uploaded={"id": "p0"}, data=None).run()
    assert sender.taken == ['/send {"ids": ["p0"], "data": []}']
    assert trip.records.fates[-1].deed is Deed.ACCEPTED


def test_bytes_that_go_with_the_reply_need_no_upload() -> None:
    sender = UploadingSender(takes_along=True)
    a_trip(sender).run()
    assert sender.taken == ['/send {"ids": [null], "data": ["bytes"]}']


@pytest.mark.parametrize("answer", [httpx2.Response(500), httpx2.ReadTimeout("")], ids=["an error", "no answer"])
def test_an_upload_of_which_nobody_knows_is_made_again_and_the_reply_certainly_not_sent(answer: Any) -> None:
    sender = UploadingSender()
    sender.answers = [answer]
    trip = a_trip(sender).run()
    assert [(fate.deed, fate.word) for fate in trip.records.fates] == [(Deed.NOT_NOW, None), (Deed.NOT_NOW, Word.AWAY)]
    assert [taken.split()[0] for taken in sender.taken] == ["/files"], "no reply was sent"


def test_a_reply_whose_file_is_kept_no_more_fails() -> None:
    sender = UploadingSender(takes_along=True)
    trip = a_trip(sender, is_there=False).run()
    assert (trip.fate.deed, trip.fate.word, sender.taken) == (Deed.NEVER, Word.GONE, [])


def test_with_postgres_away_the_mark_is_handed_back() -> None:
    sender = UploadingSender(takes_along=True)
    trip = a_trip(sender)

    async def away(ids: list[UUID]) -> list[Any]:
        raise StoreUnavailable

    trip.records.files = away  # type: ignore[method-assign]
    trip.run()
    assert (trip.fate.deed, trip.fate.counts, sender.taken) == (Deed.NOT_NOW, False, [])


def test_a_look_up_needs_no_bytes() -> None:
    out = replace(outgoing("slack", Piece(media=(PHOTO,))))
    assert SENDERS["slack"].request(out).body
