"""What Telegram's error codes mean for us. A description decides where one code has several meanings."""

from collections.abc import Mapping
from typing import Final

from onelane.channels.verdicts import Certainty, Meaning, Word, broken, never, table, user_limit

CODES: Final[Mapping[str, Meaning]] = table(
    (user_limit(Certainty.VENDOR), [429]),
    (never(Word.BLOCKED, Certainty.VENDOR), [403]),
    (never(Word.BAD_CONTENT, Certainty.VENDOR), [400]),
    (broken(Word.DENIED, Certainty.VENDOR), [401, 404]),
)
DESCRIBED: Final[Mapping[tuple[str, str], Meaning]] = {
    ("400", "chat not found"): never(Word.UNREACHABLE, Certainty.VENDOR),
    ("400", "message is too long"): never(Word.TOO_LONG, Certainty.MEMORY),
    ("400", "message caption is too long"): never(Word.TOO_LONG, Certainty.MEMORY),
    # A reply's own `raw` names the method; of a token that is unknown the description is "Not Found" alone.
    ("404", "method not found"): never(Word.BAD_CONTENT, Certainty.MEMORY),
}
"""By code, and words that the description has in lower case."""


def meaning_of(code: str, description: str) -> Meaning | None:
    """Look a code up, with its description."""
    words = description.lower()
    described = (meaning for (one, part), meaning in DESCRIBED.items() if one == code and part in words)
    return next(described, CODES.get(code))
