"""What Meta's error codes mean for us. The codes and texts are pywa's; the classes are our own judgement."""

from collections.abc import Mapping
from typing import Final

from onelane.channels.verdicts import (
    Certainty,
    Meaning,
    Word,
    broken,
    channel_limit,
    later,
    never,
    table,
    user_limit,
)

PAIR_LIMIT: Final = "131056"
CODES: Final[Mapping[str, Meaning]] = table(
    (user_limit(Certainty.VENDOR), [PAIR_LIMIT]),
    (channel_limit(Certainty.VENDOR), [130429, 4, 80007]),
    (later(Certainty.VENDOR), [131000, 131016, 131057]),
    (later(Certainty.SECOND), [133004]),
    (later(Certainty.MEMORY), [2]),
    (never(Word.WINDOW_CLOSED, Certainty.VENDOR), [131047]),
    # 131049 and 131050 are about marketing alone: such a user still has an open way for everything else.
    (
        never(Word.UNREACHABLE, Certainty.VENDOR),
        [131026, 131021, 131030, 131062, 130472, 131049, 131050, 130497],
    ),
    (never(Word.BAD_CONTENT, Certainty.VENDOR), [131051, 131008, 131009, 131053, *range(132_000, 132_100)]),
    (never(Word.BAD_CONTENT, Certainty.MEMORY), [100]),
    (broken(Word.ACCOUNT, Certainty.VENDOR), [131048, 131064, 368, 131031, 131042, 131045, 131037]),
    (broken(Word.DENIED, Certainty.VENDOR), [0, 3, 10, 190, *range(200, 300), 131005]),
)
NO_ACCESS: Final = ("100", 33)
"""A code and its subcode: the token may not see the number by which it sends, or there is no such number."""
DENIED: Final = broken(Word.DENIED, Certainty.MEMORY)
TRANSIENT: Final = later(Certainty.VENDOR)
"""An error that says so of itself, whatever its code."""
