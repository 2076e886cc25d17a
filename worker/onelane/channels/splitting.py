"""Long texts in parts: where a paragraph, a line or a word ends, and never inside what a reader sees as one letter."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

BREAKS: Final = ("\n\n", "\n", " ")
"""Where a part may end, best first, if it then is at least half full."""
ASTRAL: Final = 0xFFFF


def utf16(text: str) -> int:
    """Count the units of UTF-16: of all ways in which providers may count letters, the one that counts most."""
    return len(text) + sum(ord(letter) > ASTRAL for letter in text)


def split(text: str, size_max: int, size: Callable[[str], int] = utf16) -> list[str]:
    """Return the parts of a text: joined they are the text, and none is larger than `size_max`.

    `size` must count a text as the sum of its letters. Only a letter that is by itself too large, with thousands of
    accents, is cut.
    """
    if size(text) <= size_max:
        return [text]
    return list(_parts(list(_letters(text, size_max, size)), size_max, size))


def _letters(text: str, size_max: int, size: Callable[[str], int]) -> Iterator[str]:
    import regex  # noqa: PLC0415 - most processes split nothing

    for letter in regex.findall(r"\X", text):
        if size(letter) <= size_max:
            yield letter
        else:
            yield from letter


def _parts(letters: Sequence[str], size_max: int, size: Callable[[str], int]) -> Iterator[str]:
    start = 0
    while start < len(letters):
        end, total = start, 0
        while end < len(letters) and (total := total + size(letters[end])) <= size_max:
            end += 1
        if end < len(letters):
            # A letter larger than a part, alone: there is no smaller piece of it.
            end = max(_break(letters, start, end), start + 1)
        yield "".join(letters[start:end])
        start = end


def _break(letters: Sequence[str], start: int, end: int) -> int:
    """Return where the part that could end at `end` best ends."""
    for mark in BREAKS:
        for at in range(end, start + (end - start) // 2, -1):
            if _ends_with(letters, start, at, mark):
                return at
    return end


def _ends_with(letters: Sequence[str], start: int, at: int, mark: str) -> bool:
    first = max(start, at - len(mark))
    return [_blank(letter) for letter in letters[first:at]] == list(mark)


def _blank(letter: str) -> str:
    """Return what kind of blank a letter is: Windows writes a line's end as two characters, which are one letter."""
    return "\n" if letter == "\r\n" else letter
