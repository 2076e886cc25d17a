"""What Twilio's error codes mean for us: of an answer, or of a status that comes later."""

from collections.abc import Mapping
from typing import Final

from onelane.channels.verdicts import Certainty, Meaning, Word, broken, channel_limit, never, table

CODES: Final[Mapping[str, Meaning]] = table(
    (channel_limit(Certainty.SECOND), [20429]),
    (channel_limit(Certainty.VENDOR), [63018, 63017]),
    (never(Word.WINDOW_CLOSED, Certainty.MEMORY), [63016]),
    (never(Word.OPTED_OUT, Certainty.SECOND), [21610]),
    (never(Word.UNREACHABLE, Certainty.SECOND), [21614]),
    (never(Word.UNREACHABLE, Certainty.MEMORY), [21211, 30003, 30005, 30006, 63024]),
    (never(Word.TOO_LONG, Certainty.MEMORY), [21617]),
    (never(Word.BAD_CONTENT, Certainty.VENDOR), [63021]),
    (never(Word.BAD_CONTENT, Certainty.MEMORY), [63013, 30007]),
    (broken(Word.DENIED, Certainty.MEMORY), [20003, 20404]),
    (broken(Word.ACCOUNT, Certainty.MEMORY), [63007]),
    (broken(Word.ACCOUNT, Certainty.VENDOR), [63008]),
)
