"""What models are given of a history: the exact shapes, and that no history at all is refused."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onelane.history import PROTOCOLS, Line, Role, ToolCall, line_of
from onelane.history.protocols import BEFORE
from onelane.model import Attachment, AttachmentKind, Author, JsonObject, Message
from onelane.testing.model_protocols import CHECKS, ProtocolError

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
CALL = ToolCall(id="call_1", name="list_sites", arguments={"language": "fr"}, output=[{"id": "champigny"}])
INCIDENT = (
    Line(role=Role.USER, seq=1, at=AT, button="view_sites_fr"),
    Line(role=Role.TOOL, seq=1, at=AT, call=CALL),
    Line(role=Role.BOT, seq=1, at=AT, text="1. Champigny", state="read"),
    Line(role=Role.BOT, seq=1, at=AT, text="never seen", state="failed"),
    Line(role=Role.USER, seq=2, at=AT, text="option_1_fr"),
)


def test_chat_gives_a_call_and_its_output_a_message_each() -> None:
    function = {"name": "list_sites", "arguments": '{"language": "fr"}'}
    assert PROTOCOLS["chat"](INCIDENT) == [
        {"role": "user", "content": "view_sites_fr"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '[{"id": "champigny"}]'},
        {"role": "assistant", "content": "1. Champigny"},
        {"role": "user", "content": "option_1_fr"},
    ]


def test_responses_gives_a_call_and_its_output_an_item_each() -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "list_sites", "arguments": '{"language": "fr"}'}
    assert PROTOCOLS["responses"](INCIDENT) == [
        {"role": "user", "content": "view_sites_fr"},
        call,
        {"type": "function_call_output", "call_id": "call_1", "output": '[{"id": "champigny"}]'},
        {"role": "assistant", "content": "1. Champigny"},
        {"role": "user", "content": "option_1_fr"},
    ]


def test_anthropic_gives_the_result_in_the_users_next_message() -> None:
    use = {"type": "tool_use", "id": "call_1", "name": "list_sites", "input": {"language": "fr"}}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": '[{"id": "champigny"}]'}
    assert PROTOCOLS["anthropic"](INCIDENT) == [
        {"role": "user", "content": [{"type": "text", "text": "view_sites_fr"}]},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
        {"role": "assistant", "content": [{"type": "text", "text": "1. Champigny"}]},
        {"role": "user", "content": [{"type": "text", "text": "option_1_fr"}]},
    ]


def test_where_our_side_began_anthropic_hears_of_a_conversation_that_goes_on() -> None:
    lines = [Line(role=Role.AGENT, seq=1, at=AT, text="Hello, this is Ann.")]
    assert PROTOCOLS["anthropic"](lines)[0] == {"role": "user", "content": [{"type": "text", "text": BEFORE}]}


def test_several_messages_of_one_side_are_one_of_anthropics() -> None:
    lines = [Line(role=Role.USER, seq=seq, at=AT, text=f"part {seq}") for seq in (1, 2)]
    [message] = PROTOCOLS["anthropic"](lines)
    assert [block["text"] for block in message["content"]] == ["part 1", "part 2"]


def test_files_and_events_are_put_into_words() -> None:
    photo = Attachment(kind=AttachmentKind.IMAGE, name="roof.jpg")
    lines = [
        Line(role=Role.USER, seq=1, at=AT, text="look", media=(photo,)),
        Line(role=Role.EVENT, seq=2, at=AT, event="reaction", text="👍"),
        Line(role=Role.USER, seq=3, at=AT),
    ]
    assert [message["content"] for message in PROTOCOLS["chat"](lines)] == ["look\n[image roof.jpg]", "[reaction]\n👍"]


def test_speakers_are_named_where_there_are_several() -> None:
    ann, ben = [
        Line(role=Role.USER, seq=seq, at=AT, text="hi", author=Author(id=name, name=name))
        for seq, name in enumerate(("Ann", "Ben"), 1)
    ]
    assert [message["content"] for message in PROTOCOLS["chat"]([ann, ann])] == ["hi", "hi"]
    assert [message["content"] for message in PROTOCOLS["chat"]([ann, ben])] == ["Ann: hi", "Ben: hi"]


def test_what_no_protocol_takes_as_an_id_or_a_name_becomes_something_that_all_take() -> None:
    odd = CALL.model_copy(update={"id": "é" * 80, "name": "liste des chantiers!"})
    twice = [Line(role=Role.TOOL, seq=1, at=AT, call=call) for call in (odd, odd, CALL, CALL)]
    ids = [message["tool_call_id"] for message in PROTOCOLS["chat"](twice) if message["role"] == "tool"]
    assert len(set(ids)) == 4
    assert ids[2] == "call_1"
    for name, check in CHECKS.items():
        check(PROTOCOLS[name](twice))  # type: ignore[index]


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4)
calls = st.builds(
    ToolCall, id=st.sampled_from(["a", "b", "ö"]), name=st.text(), arguments=st.dictionaries(st.text(), json_values),
    output=json_values,
)  # fmt: skip
lines = st.lists(
    st.one_of(
        st.builds(Line, role=st.just(Role.TOOL), seq=st.just(1), at=st.just(AT), call=calls),
        st.builds(
            Line,
            role=st.sampled_from([Role.USER, Role.BOT, Role.AGENT, Role.EVENT]),
            seq=st.just(1),
            at=st.just(AT),
            text=st.text(),
            state=st.sampled_from([None, "sent", "failed"]),
            call=st.none(),
            media=st.just(()),
        ),
    )
)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=30, deadline=None)
@given(lines=lines)
def test_no_history_is_refused(protocol: str, lines: list[Line]) -> None:
    if messages := PROTOCOLS[protocol](lines):  # type: ignore[index]
        CHECKS[protocol](messages)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_call_without_its_output_is_what_the_checks_refuse(protocol: str) -> None:
    whole = PROTOCOLS[protocol](INCIDENT)  # type: ignore[index]
    CHECKS[protocol](whole)
    for missing in range(len(whole)):
        if _is_half(whole[missing]):
            with pytest.raises(ProtocolError):
                CHECKS[protocol](whole[:missing] + whole[missing + 1 :])


def _is_half(message: JsonObject) -> bool:
    return "call_1" in repr(message)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"text": " "}, "[message]"),
        ({"parts": {"location": {"latitude": 48.5}}}, "[location]"),
        ({"kind": "event", "event": "reaction", "parts": {"reaction": {}}}, "[reaction]"),
        ({"button": "b1", "parts": {"flow": {}}}, "b1"),
    ],
)
def test_a_message_without_words_is_named_to_the_model_that_is_to_answer_it(said: JsonObject, told: str) -> None:
    blank: JsonObject = {"text": "", "button": None, "attachments": ()}
    message = Message(id=uuid4(), seq=1, accepted_at=AT, attempts=0, **{**blank, **said})
    assert PROTOCOLS["chat"]([line_of(message)]) == [{"role": "user", "content": told}]
