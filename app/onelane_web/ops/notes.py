"""What a page says about the act before it: by a name in its address, so that nobody else's text gets there."""

from typing import Final

REDIS_AWAY: Final = " Redis is away: the workers update it when it is back."
NOTES: Final = {
    "done": "Done.",
    "away": "Done in Postgres." + REDIS_AWAY,
    "nothing": "Nothing was changed: somebody was faster, or it was so already.",
    "noted": "Noted: it takes effect once the messages that wait have been answered.",
    "answered": "Your answer is on its way.",
    "unsendable": "Not sent: this channel cannot send that, or the person wants no more messages.",
    "empty": "Not sent: the answer is empty.",
    "busy": "Nothing was changed: a turn or a request of this user has not ended. Try again.",
    "forgotten": "The user is forgotten.",
    "unsure": "Nothing was changed: the box was not ticked.",
    "nobody": "There is no such user: nobody has written under that id or name.",
    "stays": "Read again: it is still not understood, and stays in quarantine.",
    "accepted": "Read again: all of it is understood now.",
}
