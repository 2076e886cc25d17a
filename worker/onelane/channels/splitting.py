"""Long texts in parts: where a paragraph, a line or a word ends, and never inside what a reader sees as one letter."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

BREAKS: Final = ("\n\n", "\r\n\r\n", "\n", " ")
"""After which a part may end, best first, if it then is at least half full."""


def utf16(text: str) -> int:
    """Count the units of UTF-16: of all ways in which providers may count letters, the one that counts most."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def split(text: str, size_max: int, size: Callable[[str], int] = utf16) -> list[str]:
    """Return the parts of a text: joined they are the text, and none is larger than `size_max`.

    `size` must count a text as the sum of its letters. Only a letter that is by itself too large, with thousands of
    accents, is cut.
    """
    if size(text) <= size_max:
        return [text]
    return list(_parts(text, list(_letters(text, size_max, size)), size_max, size))


def _letters(text: str, size_max: int, size: Callable[[str], int]) -> Iterator[str]:
    import regex  # noqa: PLC0415 - most processes split nothing

    for letter in regex.findall(r"\X", text):
        if size(letter) <= size_max:
            yield letter
        else:
            yield from letter


def _parts(text: str, letters: list[str], size_max: int, size: Callable[[str], int]) -> Iterator[str]:
    ends = list(accumulate(map(len, letters)))
    bounds, start, room = frozenset(ends), 0, size_max
    for letter, end in zip(letters, ends, strict=True):
        room -= size(letter)
        before = end - len(letter)
        while room < 0 and before > start:
            cut = _break(text, start, before, bounds)
            yield text[start:cut]
            start, room = cut, size_max - size(text[cut:end])
    yield text[start:]


def _break(text: str, start: int, end: int, bounds: frozenset[int]) -> int:
    """Return where the part that could end at `end` best ends."""
    half = start + (end - start) // 2
    for mark in BREAKS:
        first = max(start, half - len(mark))
        at = text.rfind(mark, first, end)
        while at >= 0:
            if at + len(mark) in bounds:
                return at + len(mark)
            at = text.rfind(mark, first, at + len(mark) - 1)
    return end
