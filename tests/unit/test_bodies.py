import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onelane.channels.bodies import DEPTH_MAX, json_object, repaired
from onelane.errors import BadRequest
from onelane.storable import is_storable

TEXT = st.text(st.characters(), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": %s}' % (b"1" * 65),
        b'{"a": 0.%s}' % (b"1" * 65),
        b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": "\x00"}',
        b'{"a": 1} x',
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"[" * DEPTH_MAX + b"1" + b"]" * DEPTH_MAX + b"}",
        b'{"a": [' + b"1," * 250_000 + b"1]}",
    ],
    ids=range(17),
)
def test_what_is_ambiguous_or_out_of_bounds_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as refusal:
        json_object(body)
    assert refusal.value.field == "body"


@settings(max_examples=40)
@given(st.dictionaries(TEXT, JSON, max_size=5))
def test_what_is_json_is_read_as_it_was_written(value: dict[str, object]) -> None:
    assert json_object(json.dumps(value)) == value


@given(st.binary(max_size=100))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    with suppress(BadRequest):
        assert isinstance(json_object(body), dict)


@pytest.mark.parametrize("brackets", ["[" * 100 + "]" * 100, "{[" * 200])
def test_brackets_in_a_text_are_no_nesting(brackets: str) -> None:
    assert json_object(json.dumps({"text": brackets})) == {"text": brackets}


@pytest.mark.parametrize(
    ("value", "mended", "repairs"),
    [
        ("hello", "hello", ()),
        ("a\0b", "ab", ("nul",)),
        ("a\ud83d", "a?", ("surrogate",)),
        ("\0\udcff", "?", ("nul", "surrogate")),
        ({"a\0": ["\ud800", 1, None]}, {"a?": ["?", 1, None]}, ("nul", "surrogate")),
        ({"a": 1, "a\0": 2}, {"a": 1, "a?": 2}, ("nul",)),
        (7, 7, ()),
    ],
)
def test_what_cannot_be_stored_is_mended_and_named(value: object, mended: object, repairs: tuple[str, ...]) -> None:
    assert repaired(value) == (mended, repairs)


@given(TEXT)
def test_whatever_was_repaired_can_be_stored_and_needs_no_repair(text: str) -> None:
    mended, repairs = repaired(text)
    assert is_storable(mended)
    assert repaired(mended) == (mended, ())
    assert bool(repairs) == (mended != text)
