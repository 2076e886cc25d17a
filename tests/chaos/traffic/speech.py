"""What a message asks of the bot, and what the bot answers: the language that the plan writes and the checker reads.

A text is four words: the canary, what to do, its argument (`-` without one), a tag that no other message has.
Only END_WORD stands alone, since it must be the whole text; the service answers it without asking the bot.

| word | argument | the bot |
|---|---|---|
| `echo` | | answers |
| `state` | | answers with the number of messages it has handled in this session, this one included |
| `tool` | seconds | takes its time, reads the session's history, saves a tool output named TOOL, answers |
| `say` | how many | gives so many answers |
| `sleep` | seconds | takes its time, whatever becomes of its lease |
| `doze` | seconds | takes its time, and stops when its turn is cancelled |
| `raise-until` | attempts | fails so often |
| `raise` | | fails until an operator has redriven the message |
| `hang` | | takes longer than a turn may, the first time |
| `crash` | times | ends its process, so often |
| `ask` | seconds | asks a model, in a step that is kept, and answers |
| `newer` | | takes in what has arrived since, and answers that too |
| `shield` | seconds | takes its time behind a shield: no newer message throws its turn away |
| `fork` | | answers, and forks as it leaves: its child leaves the handler too |
| `bye` | | ends the session |
| `escalate` | | hands the session to a human |
A turn of several messages does what each asks, in their order, and answers all.
"""

from typing import NamedTuple

CANARY = "canary-7f3a91c2"
"""In every text and every answer: found anywhere but in Postgres and in histories, it is a leak."""
SENDER_PREFIX = "+3399"
"""Likewise of every sender."""
PHONE_PREFIX = "339900339900"
"""The same where a phone number has no plus."""
SCOPED_PREFIX = "US.canary7f3a"
"""Likewise of every scoped id."""
SLACK_PREFIX = "CANARY7F3A"
"""In every id of Slack."""
END_WORD = "/new"
NOTHING = "-"
BUSY = f"{CANARY} busy"
"""What is said, on a channel that rejects, to who writes while they are answered: once until they are."""
TOOL = "seen"
BATCH = "batch"
"""The tool output that names the members of a turn of several messages, by their numbers."""
REDRIVEN = "redriven"
"""A folder in the history, with a file for each message that an operator redrove: the bot handles it from then on."""

DEEDS = {"bye": "handler", "escalate": "escalate"}


class Ask(NamedTuple):
    """What a text asks for."""

    word: str
    argument: str = NOTHING
    tag: str = ""


def text_of(ask: Ask) -> str:
    """Word a message."""
    return END_WORD if ask.word == END_WORD else f"{CANARY} {ask.word} {ask.argument} {ask.tag}"


def ask_of(text: str) -> Ask:
    """Understand a message; raise ValueError for one that the plan never wrote."""
    if text == END_WORD:
        return Ask(END_WORD)
    canary, *said = text.split()
    if canary != CANARY:
        raise ValueError("no message of ours")
    return Ask(*said)


def deed_of(text: str) -> str | None:
    """Tell what a handled message does to its session, in the words of the policy's model."""
    return "user_request" if text == END_WORD else DEEDS.get(ask_of(text).word)


def answers_to(text: str, nr: int) -> list[str]:
    """Word the bot's answers to the `nr`-th message that it handles in a session."""
    match ask_of(text):
        case Ask("say", count):
            return [f"{text} {ordinal}/{count}" for ordinal in range(1, int(count) + 1)]
        case Ask("state"):
            return [f"{text} n={nr}"]
        case Ask(word) if word == END_WORD:
            return []
    return [text]
