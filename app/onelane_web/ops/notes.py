"""What a page says about the act before it: by a name in its address, so that nobody else's text gets there."""

from typing import Final

REDIS_AWAY: Final = " Redis is away: the workers update it when it is back."
NOTES: Final = {
    "done": "Done.",
    "away": "Done in Postgres." + REDIS_AWAY,
    "paused-already": "Nothing was changed: the user was paused already.",
    "not-paused": "Nothing was changed: the user was not paused.",
    "none-dead": "Nothing was changed: no message of the user is dead.",
    "not-dead": "Nothing was changed: that message is not dead any more, or somebody has dropped it.",
    "not-open": "Nothing was changed: that session is not open any more.",
    "escalated-already": "The session was escalated already: its time counts from now.",
    "not-escalated": "Nothing was changed: that session is not escalated any more.",
    "reply-moved": "Nothing was changed: something else has become of that reply meanwhile, or it is being sent.",
    "not-kept": "Nothing was changed: that webhook is not in quarantine any more.",
    "not-held": "Nothing was changed: the channel sends already.",
    "gone": "Nothing was changed: there is no such user any more.",
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
