"""What a provider's answer to a send means: accepted, not now, never, channel broken, or unknown.

Whatever is in no table is unknown, never success: a reply that was perhaps sent is settled, not sent again.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

from onelane.channels.bodies import json_object
from onelane.errors import BadRequest, OnelaneError
from onelane.model import JsonObject

CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
WAIT_MAX_S: Final = 86_400.0
TOO_MANY: Final = 429


class Outcome(StrEnum):
    """What becomes of a reply."""

    ACCEPTED = "accepted"
    NOT_NOW = "not_now"
    """It was certainly not sent, and may be later."""
    NEVER = "never"
    """This recipient or this content is refused."""
    BROKEN = "broken"
    """Nothing of the channel is sent until somebody mends it."""
    UNKNOWN = "unknown"


class Word(StrEnum):
    """Why a reply was not sent, alike for all providers."""

    WINDOW_CLOSED = "window_closed"
    UNREACHABLE = "unreachable"
    BLOCKED = "blocked"
    OPTED_OUT = "opted_out"
    BAD_CONTENT = "bad_content"
    TOO_LONG = "too_long"
    NO_ROUTE = "no_route"
    """Nothing says where to send it."""
    LIMIT = "limit"
    AWAY = "away"
    """The provider says to try again later, or nobody listens."""
    MOVED = "moved"
    """The conversation has another id: see `Verdict.route`."""
    ABSENT = "absent"
    """The provider was asked, and does not have it."""
    DENIED = "denied"
    """The token or its rights."""
    ACCOUNT = "account"
    """Locked, unpaid or of bad quality."""
    GONE = "gone"
    MISCONFIGURED = "misconfigured"
    GAVE_UP = "gave_up"
    """It was tried for as long as a reply may be."""
    UNCLEAR = "unclear"
    """No answer, or none that is certain."""


class Unsendable(OnelaneError):  # noqa: N818 - it names a state, and reads so where it is caught
    """A channel has no form for what a reply says, or no way to its user. The reason quotes nobody."""

    def __init__(self, word: Word, reason: str) -> None:
        """Take our word for it, and what a bot's author can do."""
        super().__init__(reason)
        self.word = word


class Scope(StrEnum):
    """Who waits."""

    USER = "user"
    CHANNEL = "channel"


class Certainty(StrEnum):
    """How it is known what a code means."""

    VENDOR = "vendor"
    """From the vendor's own page or code."""
    SECOND = "second"
    """From somebody else's page or code."""
    MEASURED = "measured"
    MEMORY = "memory"
    """Not verified."""


@dataclass(frozen=True, slots=True)
class Response:
    """A provider's answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Names in lower case."""
    body: bytes = field(default=b"", repr=False)

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - as HTTP numbers them

    @property
    def is_refusal(self) -> bool:
        """Whether the status is 4xx or 5xx."""
        return self.status >= 400  # noqa: PLR2004 - as above

    def content(self) -> JsonObject:
        """Return the JSON object in it, an empty one if it holds none."""
        try:
            return json_object(self.body)
        except BadRequest:
            return {}

    def retry_after_s(self) -> float | None:
        """Read `Retry-After`: seconds, or a date beside the answer's own."""
        given = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", given):
            return min(float(given), WAIT_MAX_S)
        try:
            wait = parsedate_to_datetime(given) - parsedate_to_datetime(self.headers.get("date", ""))
        except (ValueError, TypeError, OverflowError):
            return None
        return min(max(wait.total_seconds(), 0.0), WAIT_MAX_S)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer, or none, means for a reply."""

    outcome: Outcome
    word: Word | None = None
    code: str = ""
    """The provider's own, or an exception's name. Never a text."""
    provider_id: str | None = None
    """The provider's id of what was accepted, in the spelling of webhooks that speak of it."""
    wait_s: float | None = None
    """How long the provider asks to wait; None: by our own backoff."""
    scope: Scope = Scope.USER
    """Whom a wait is for."""
    counts: bool = True
    """Whether this was an attempt. A limit is none."""
    route: JsonObject | None = field(default=None, repr=False)
    """The way from now on, where the conversation moved."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code of a provider means."""

    outcome: Outcome
    word: Word
    certainty: Certainty
    scope: Scope = Scope.USER
    counts: bool = True

    def verdict(self, code: object, wait_s: float | None = None) -> Verdict:
        """Judge an answer that has this meaning."""
        return Verdict(self.outcome, self.word, code_of(code), wait_s=wait_s, scope=self.scope, counts=self.counts)


def user_limit(certainty: Certainty) -> Meaning:
    """Say that this user gets too much."""
    return Meaning(Outcome.NOT_NOW, Word.LIMIT, certainty, counts=False)


def channel_limit(certainty: Certainty) -> Meaning:
    """Say that the whole account sends too much."""
    return Meaning(Outcome.NOT_NOW, Word.LIMIT, certainty, Scope.CHANNEL, counts=False)


def later(certainty: Certainty) -> Meaning:
    """Say that the provider certainly did not take it, and may take it later."""
    return Meaning(Outcome.NOT_NOW, Word.AWAY, certainty)


def never(word: Word, certainty: Certainty) -> Meaning:
    """Say that this recipient or content is refused."""
    return Meaning(Outcome.NEVER, word, certainty)


def broken(word: Word, certainty: Certainty) -> Meaning:
    """Say that nothing of the channel can be sent."""
    return Meaning(Outcome.BROKEN, word, certainty, Scope.CHANNEL, counts=False)


def unclear(certainty: Certainty) -> Meaning:
    """Say that nobody knows whether it was sent."""
    return Meaning(Outcome.UNKNOWN, Word.UNCLEAR, certainty)


def table(*rows: tuple[Meaning, Iterable[Any]]) -> Mapping[str, Meaning]:
    """Make a table by code; raise ValueError for a code that has two meanings."""
    found: dict[str, Meaning] = {}
    for meaning, codes in rows:
        for code in map(str, codes):
            if code in found:
                raise ValueError(f"{code} has two meanings")
            found[code] = meaning
    return found


def accepted(provider_id: str) -> Verdict:
    """Say that the provider has it."""
    return Verdict(Outcome.ACCEPTED, provider_id=provider_id)


def absent() -> Verdict:
    """Say that the provider certainly does not have it."""
    return Verdict(Outcome.NOT_NOW, Word.ABSENT)


def unknown(code: object = "") -> Verdict:
    """Say that nobody knows whether it was sent."""
    return Verdict(Outcome.UNKNOWN, Word.UNCLEAR, code_of(code))


def too_many(response: Response) -> Verdict:
    """Say that the account sends too much, and how long to wait."""
    return channel_limit(Certainty.VENDOR).verdict(response.status, response.retry_after_s())


def code_of(code: object) -> str:
    """Return a code as it may be stored and logged: nothing that could be a text."""
    text = "" if isinstance(code, bool) or not isinstance(code, str | int) else str(code)[:65]
    return text if CODE.fullmatch(text) else ""


_AWAY = replace(later(Certainty.MEASURED), scope=Scope.CHANNEL)
_MISCONFIGURED = broken(Word.MISCONFIGURED, Certainty.MEASURED)
ERRORS: Final[Mapping[str, Meaning]] = {
    "ConnectError": _AWAY,
    "ConnectTimeout": _AWAY,
    "PoolTimeout": Meaning(Outcome.NOT_NOW, Word.LIMIT, Certainty.MEASURED, counts=False),
    "UnsupportedProtocol": _MISCONFIGURED,
    "InvalidURL": _MISCONFIGURED,
    "LocalProtocolError": never(Word.BAD_CONTENT, Certainty.MEASURED),
    **dict.fromkeys(("RemoteProtocolError", "ReadError", "ReadTimeout"), unclear(Certainty.MEASURED)),
}
"""Exceptions of httpx2 by their names. The first six are raised before anything is sent."""


def judge_error(error: BaseException) -> Verdict:
    """Judge a request that had no answer, for all providers alike."""
    name = type(error).__name__
    return ERRORS.get(name, unclear(Certainty.MEMORY)).verdict(name)
