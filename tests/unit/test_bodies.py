"""JSON from outside is read as every reader would read it, or refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelane.channels.bodies import DEPTH_MAX, json_object, repaired
from onelane.errors import BadRequest
from onelane.model import is_storable

TEXTS = st.text(st.one_of(st.characters(), st.characters(categories=["Cs"]), st.just("\0")), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def nested(levels: int) -> bytes:
    return b'{"a": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"[]",
        b"7",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5_000 + b"}",
        b'{"a": 1, "a": 2}',
        b'{"a": "\xff"}',
        nested(DEPTH_MAX + 1),
        nested(100_000),
    ],
    ids=lambda body: repr(body[:16]),
)
def test_what_readers_would_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match=r"^body: "):
        json_object(body)


def test_an_object_is_read_down_to_the_last_allowed_level() -> None:
    assert json_object(b'{"a": {"b": 1.5}}') == {"a": {"b": 1.5}}
    json_object(nested(DEPTH_MAX))


def test_what_postgres_cannot_hold_is_mended_and_named() -> None:
    assert repaired({"a\0": ["b\ud800", "c"]}) == ({"a": ["b?", "c"]}, ("nul", "surrogate"))
    assert repaired({"a": "\N{GRINNING FACE}"}) == ({"a": "\N{GRINNING FACE}"}, ())


@given(VALUES)
def test_whatever_is_mended_can_be_stored(value: object) -> None:
    mended, names = repaired(value)
    text = json.dumps(mended, ensure_ascii=False)
    assert is_storable(text)
    assert "\\u0000" not in text
    assert bool(names) == (mended != value)
