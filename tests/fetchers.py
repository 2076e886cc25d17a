"""Bots that answer with the files that they were sent."""

from onelane import AsyncTurn, FileError, Turn


def handle(turn: Turn) -> str:
    """Fetch all."""
    said = []
    for attachment in turn.message.attachments:
        try:
            file = turn.fetch(attachment)
            said.append(f"{file.content.decode()} ({file.content_type})")
        except FileError as error:
            said.append(f"{type(error).__name__}: {error}")
    return ", ".join(said)


async def handle_async(turn: AsyncTurn) -> str:
    """Fetch all."""
    said = []
    for attachment in turn.message.attachments:
        try:
            file = await turn.fetch(attachment)
            said.append(f"{file.content.decode()} ({file.content_type})")
        except FileError as error:
            said.append(f"{type(error).__name__}: {error}")
    return ", ".join(said)
