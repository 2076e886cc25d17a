"""The files of a reply, made ready before its request: uploaded once, or taken along.

What an upload gave is remembered before the reply is sent: who repeats it does not upload again. One whose outcome
nobody knows is harmless, and is made again.
"""

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

from onelane.channels.sending import Outgoing
from onelane.channels.verdicts import Certainty, Outcome, Verdict, Word, later
from onelane.model import Attachment

if TYPE_CHECKING:
    from onelane.outbox.records import SendRecords
    from onelane.outbox.sending import Sending


async def made_ready(out: Outgoing, sending: "Sending", records: "SendRecords") -> Outgoing | Verdict:
    """Return the reply with files that its request can name or hold, or why that cannot be; raise StoreUnavailable."""
    kept = {row.id: row for row in await records.files([one.file for one in out.piece.media if one.file])}
    media, files = list[Attachment](), dict[UUID, bytes]()
    for one in out.piece.media:
        if one.file is None:
            media.append(one)
        elif (row := kept.get(one.file)) is None:
            return Verdict(Outcome.NEVER, Word.GONE)
        elif row.uploaded is not None:
            media.append(Attachment.model_validate(row.uploaded))
        elif (steps := sending.sender.upload(one, row.data, out)) is None:
            files[one.file] = row.data
            media.append(one)
        elif isinstance(found := await sending.upload(steps), Attachment):
            await records.note_uploaded(one.file, found)
            media.append(found)
        else:
            return _not_sent(found)
    return replace(out, piece=out.piece.model_copy(update={"media": tuple(media)}), files=files)


def _not_sent(verdict: Verdict) -> Verdict:
    """Judge what came before the reply: nothing of that was sent."""
    return later(Certainty.MEASURED).verdict(verdict.code) if verdict.outcome is Outcome.UNKNOWN else verdict
