"""What the channels of a process send by: replies in pieces, as Postgres takes them, and until when they are taken."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from onelane.bot.reply import REPLIES_MAX
from onelane.channels.provider import Provider
from onelane.channels.sending import Piece
from onelane.channels.verdicts import Unsendable, Word
from onelane.config import Channel
from onelane.errors import BadResult
from onelane.model import JsonObject
from onelane.problems import first_problem
from onelane.telemetry.log import event

SAID: Final = TypeAdapter(list[Piece])
SHORT: Final = 1_000
"""Letters that no sender needs to split: with more, it may take longer than an event loop should."""


class Senders:
    """Each channel's sender, where its settings allow it to send."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        """Take the providers by their channels' names."""
        self._senders = {name: provider.sender for name, provider in providers.items()}

    def rows(self, channel: str, replies: Iterable[Piece]) -> list[JsonObject]:
        """Take replies apart: one row a request, as settle_turns takes them.

        What cannot be sent is one row, whole, which says why. Raise BadResult for more than REPLIES_MAX rows.
        """
        rows: list[JsonObject] = []
        for said in replies:
            rows += self._rows(channel, said)
            if len(rows) > REPLIES_MAX:
                raise BadResult(f"the replies of a turn must not need more than {REPLIES_MAX} messages: say less")
        return rows

    def apologies(self, channels: Mapping[str, Channel]) -> dict[str, list[JsonObject]]:
        """Return the rows of each channel's apology, where the poison policy says it."""
        return {
            name: self.rows(name, [Piece(text=channel.apology)])
            for name, channel in channels.items()
            if channel.poison == "apologise"
        }

    def reply_until(self, channel: str, to: Sequence[str], last_written: datetime | None) -> datetime | None:
        """Return until when anything but a template is taken, if not always, from somebody who wrote last then."""
        sender = self._senders.get(channel)
        window_s = sender.window_s(to) if sender else None
        return None if window_s is None or last_written is None else last_written + timedelta(seconds=window_s)

    def _rows(self, channel: str, said: Piece) -> list[JsonObject]:
        sender = self._senders.get(channel)
        if sender is None:
            return [{**row_of(said), "failure": Word.NO_ROUTE}]
        try:
            return [row_of(piece) for piece in sender.pieces(said)]
        except Unsendable as problem:
            event("reply_unsendable", channel=channel, word=problem.word, reason=str(problem))
            return [{**row_of(said), "failure": problem.word}]


def pieces_of(said: Any) -> list[Piece]:
    """Return replies, each as `Reply.said` gives it; raise BadResult for what a handler's process says amiss."""
    try:
        return SAID.validate_python(said)
    except ValidationError as error:
        raise BadResult(f"replies.{first_problem(error)}") from None


def are_short(replies: Iterable[Piece]) -> bool:
    """Whether the replies are taken apart at once."""
    return sum(len(said.text) + sum(len(one.title) for one in said.buttons) for said in replies) <= SHORT


def row_of(piece: Piece) -> JsonObject:
    """Return a piece as a row of a reply."""
    parts = {"buttons": [one.model_dump() for one in piece.buttons], "template": piece.template}
    row = {
        "attachments": [one.model_dump(mode="json", exclude_none=True) for one in piece.media],
        "parts": {name: value for name, value in parts.items() if value},
        "quoted": piece.quote,
        "raw": piece.raw,
    }
    return {"text": piece.text, **{name: value for name, value in row.items() if value}}
