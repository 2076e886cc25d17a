"""What a bot can say, and what it is told when nobody could send that."""

import json
from base64 import b64decode
from datetime import UTC, datetime
from threading import Event
from typing import Any
from uuid import uuid4

import pytest

from onelane import Attachment, Button, Reply, Turn, Upload
from onelane.bot import Session, User
from onelane.bot.reply import UPLOADS_MAX_BYTES
from onelane.bot.storable import EFFECTS_MAX_BYTES
from onelane.errors import BadResult
from tests.unit.test_hosting import Gated, turn_read

PHOTO = Attachment(url="https://cdn.example/a.jpg", content_type="image/jpeg")


def upload(**changes: Any) -> Upload:
    return Upload(**{"data": b"bytes", "name": "a.png", "content_type": "image/png", **changes})


def a_turn() -> Turn:
    read = turn_read("hello")
    user, session = User(uuid4(), "demo", "s", {}), Session(uuid4(), datetime.now(UTC), {})
    return Turn(read.messages, user, session, Gated(), Event())


def test_a_reply_says_what_it_was_given_and_nothing_else() -> None:
    assert Reply("yes").said() == {"text": "yes"}
    whole = Reply(
        text="look",
        buttons=[Button(id="y", title="Yes")],
        media=(PHOTO,),
        template={"name": "hi", "language": None},
        quote="T1:C1:1.2",
        raw={"silent": True},
    )
    assert whole.said() == {
        "text": "look",
        "buttons": [{"id": "y", "title": "Yes"}],
        "media": [{"url": "https://cdn.example/a.jpg", "kind": "file", "content_type": "image/jpeg"}],
        "template": {"name": "hi", "language": None},
        "quote": "T1:C1:1.2",
        "raw": {"silent": True},
    }


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "no text": ({"text": None}, "Reply.text: must be a valid string"),
    "a NUL character": ({"text": "a\0"}, "Reply.text: must hold no NUL character, and no half of a character"),
    "half of a character": ({"text": "\ud83d"}, "Reply.text: must hold no NUL character, and no half of a character"),
    "a title for a button": ({"buttons": ["Yes"]}, "Reply.buttons.0: must be a Button: Button(id=…, title=…)"),
    "a button without a title": (
        {"buttons": [Button(id="y", title="")]},
        "Reply.buttons.0: must have an id of 1 to 2000",
    ),
    "too long a title": (
        {"buttons": [Button(id="y", title="t" * 1_001)]},
        "Reply.buttons.0: must have an id of 1 to 2000",
    ),
    "too many buttons": ({"buttons": [Button(id="y", title="Yes")] * 101}, "Reply.buttons: must be at most 100"),
    "an address for a file": ({"media": ["https://cdn.example/a.jpg"]}, "Reply.media.0: must be an Attachment"),
    "another turn's bytes": ({"media": [Attachment(file=uuid4())]}, "Reply.media.0: must have a url, or the id"),
    "an empty file": ({"media": [upload(data=b"")]}, "Reply.media.0: data must be 1 to 16777216 bytes"),
    "too large a file": ({"media": [upload(data=b"." * (UPLOADS_MAX_BYTES + 1))]}, "Reply.media.0: data must be"),
    "a name with lines": ({"media": [upload(name="a\r\nb")]}, "Reply.media.0: name must be 1 to 200 characters"),
    "no type": ({"media": [upload(content_type="picture")]}, "Reply.media.0: content_type must be like image/png"),
    "a file that is nowhere": ({"media": [Attachment(name="a.jpg")]}, "Reply.media.0: must have a url, or the id"),
    "a file on our disk": ({"media": [Attachment(url="/tmp/a.jpg")]}, "Reply.media.0: url must begin with https://"),
    "too many files": ({"media": [PHOTO] * 31}, "Reply.media: must be at most 30"),
    "a name for a template": ({"template": "hi"}, "Reply.template: must be a JSON object"),
    "nothing to quote": ({"quote": ""}, "Reply.quote: must be an id of 1 to 1000 characters"),
    "a list of fields": ({"raw": []}, "Reply.raw: must be a JSON object"),
}


@pytest.mark.parametrize(("said", "why"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_nobody_could_send_is_refused_and_says_what_to_do(said: dict[str, Any], why: str) -> None:
    with pytest.raises(BadResult) as refused:
        Reply(**said)
    assert str(refused.value).startswith(why)


def test_what_looks_like_a_nul_in_json_is_a_text_like_any_other() -> None:
    typed = r"\u0000 \\u0000"
    turn = a_turn()
    turn.user.state["said"] = typed
    effects = turn.effects(typed)
    assert (effects["replies"], effects["user_state"]) == ([{"text": typed}], {"said": typed})
    turn.user.state["said"] = "\\\0"
    with pytest.raises(BadResult, match="holds a NUL character"):
        turn.effects(None)


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        (Reply(raw={"at": datetime.now(UTC)}), "is not JSON: TypeError"),
        (Reply(template={"name": "a\0"}), "holds a NUL character: take it out"),
        (Reply(raw={"name": "\ud83d"}), "holds half of a character (a lone surrogate): replace it"),
        ("\ud83d", "Reply.text: must hold no NUL character"),
        ({"text": "yes"}, "a handler returns str, Reply, a list of at most 100 of them, or None; not dict"),
        (["yes", 1], "a reply is str or Reply, not int"),
        (["yes"] * 101, "a list of at most 100"),
        ("a" * EFFECTS_MAX_BYTES, "a turn may store 1000000 bytes"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_stored(replies: Any, why: str) -> None:
    with pytest.raises(BadResult) as refused:
        a_turn().effects(replies)
    assert why in str(refused.value)


def test_texts_and_replies_may_be_mixed() -> None:
    assert a_turn().effects(["one", Reply("two")]) == {"replies": [{"text": "one"}, {"text": "two"}]}
    assert a_turn().effects(None) == a_turn().effects([]) == {}
    assert json.dumps(a_turn().effects(Reply(media=[PHOTO])))


def test_the_bytes_of_files_lie_beside_what_is_said() -> None:
    photo = upload(data=b"." * EFFECTS_MAX_BYTES)
    effects = a_turn().effects(Reply("look", media=[photo]))
    [(file_id, data)] = effects["uploads"].items()
    described = {"file": file_id, "kind": "image", "content_type": "image/png", "name": "a.png"}
    assert effects["replies"] == [{"text": "look", "media": [{**described, "size": EFFECTS_MAX_BYTES}]}]
    assert b64decode(data) == photo.data
    assert "...." not in repr(photo)


def test_a_turns_files_have_a_bound_together() -> None:
    half = UPLOADS_MAX_BYTES // 2 + 1
    with pytest.raises(BadResult, match="the files of a turn may have 16777216 bytes, not 16777218: send some by"):
        a_turn().effects([Reply(media=[upload(data=b"." * half)]) for _ in range(2)])


def test_a_file_that_is_sent_again_and_again_is_kept_each_time_for_itself() -> None:
    """One that is forgotten once its reply is sent is not another's, nor is the id that one provider gave it."""
    logo = Reply(media=[upload()])
    first, second = (a_turn().effects([logo, logo]) for _ in range(2))
    assert len({*first["uploads"], *second["uploads"]}) == 4
    named = {one["file"] for reply in first["replies"] for one in reply["media"]}
    assert named == set(first["uploads"])
