"""What the answer of a service of yours means: the Standard Webhooks specification says so by the HTTP status."""

from collections.abc import Mapping
from typing import Final

from onelane.channels.verdicts import Certainty, Meaning, Outcome, Scope, Word, broken, channel_limit, table

CODES: Final[Mapping[str, Meaning]] = table(
    (channel_limit(Certainty.VENDOR), [429]),
    # It may have been taken; the same key again is harmless there.
    (Meaning(Outcome.NOT_NOW, Word.AWAY, Certainty.VENDOR, Scope.CHANNEL), [502, 504]),
    (broken(Word.GONE, Certainty.VENDOR), [410]),
)
