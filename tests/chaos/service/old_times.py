"""People who wrote long before the run: their sessions are older than any is kept, once they have been answered."""

from datetime import UTC, datetime, timedelta

import psycopg
from psycopg.types.json import Jsonb

from tests.chaos.history import Recorder
from tests.chaos.traffic.speech import SENDER_PREFIX, Ask, text_of

AGO = timedelta(days=40)
KEPT_DAYS = 1
PEOPLE = range(900, 920)
CHANNELS = ("demo", "brief", "aged")
EACH = 2


def write(url: str, recorder: Recorder) -> None:
    """Let them write, straight into the database, and note that nothing of it may be left."""
    with psycopg.connect(url) as connection:
        for nr in PEOPLE:
            mark, channel, sender = f"u{nr}.", CHANNELS[nr % len(CHANNELS)], f"{SENDER_PREFIX}{nr:08d}"
            items = [_item(channel, sender, f"{mark}says.{count}") for count in range(EACH)]
            [[answers]] = connection.execute("SELECT accept(%s)", (Jsonb(items),)).fetchall()
            recorder.note("forgotten", user_id=answers[0]["user_id"], channel=channel, sender=sender, words=[mark])


def _item(channel: str, sender: str, name: str) -> dict[str, object]:
    return {
        "channel": channel,
        "senders": [sender],
        "external_id": name,
        "text": text_of(Ask("echo", tag=name)),
        "now": (datetime.now(UTC) - AGO).isoformat(),
    }
