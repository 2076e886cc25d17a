"""The sites bot behind the naive resolver: receives the evening's webhooks, one thread a request, and answers."""

import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

from onelane.bot import Session, Turn, User
from onelane.bot.memory import Memory
from onelane.channels import Inbound
from onelane.channels.twilio import FORM
from onelane.deliveries import Delivery
from onelane.dev.incident.account import Account, Line, Opened
from onelane.dev.incident.naive import Flaws, Resolver, Rows, StatementFailed
from onelane.dev.incident.timeline import ADDRESS, CHANNEL, EVENING, Moment, Step, provider
from onelane.handlers.sites import OUTPUT, handle
from onelane.history import Line as HistoryLine
from onelane.model import Message

MEET_S = 10.0
"""Far more than two threads need to meet; after it the replay fails with an error."""


def replay(evening: Sequence[Step] = EVENING, *, flaws: Flaws | None = None, rows: Rows | None = None) -> Account:
    """Send the evening to a bot with these flaws (by default all of them) and return the result."""
    bot = NaiveBot(flaws or Flaws(), rows or Rows())
    for step in evening:
        if len(step) == 1:
            bot.receive(step[0])
        else:
            _cross(bot, *step)
    return bot.account()


class NaiveBot:
    """The service as it was: whichever session the resolver names gets the message and its tool outputs."""

    def __init__(self, flaws: Flaws, rows: Rows) -> None:
        self._rows = rows
        self._resolver = Resolver(flaws, rows)
        self._outputs = Outputs()
        self._token = secrets.token_hex(16)
        self._lines: list[Line] = []

    def receive(self, moment: Moment, meet: Callable[[], object] = lambda: None) -> None:
        """Handle one request; `meet` is called where another may come in between."""
        delivery = self._deliver(moment)
        try:
            session = self._resolver.resolve(moment.at, meet)
        except StatementFailed:
            self._lines.append(Line(moment, moment.at, None, None, None))
            return
        self._rows.touch(session, moment.at)
        self._lines.append(Line(moment, moment.at, None, session, self._answer(moment, delivery, session)))

    def account(self) -> Account:
        """Return the result so far."""
        return Account(
            lines=sorted(self._lines, key=lambda line: line.moment.at),
            sessions=[Opened(row.id, row.ended_by) for row in self._rows.all],
            sessions_with_list=self._outputs.sessions_with(OUTPUT),
        )

    def _deliver(self, moment: Moment) -> Delivery:
        """Verify and parse the provider's webhook; this half of the service had no flaw."""
        signed, twilio = moment.signed(self._token), provider(self._token)
        headers = {name.lower(): value for name, value in signed.headers.items()}
        inbound = Inbound(ADDRESS, headers, FORM, signed.body)
        twilio.verify(inbound)
        [delivery] = twilio.parse(inbound).deliveries
        return delivery

    def _answer(self, moment: Moment, delivery: Delivery, session: UUID) -> str:
        """Run the bot in that session, and keep what it saves."""
        message = Message(
            id=uuid4(),
            seq=len(self._lines) + 1,
            text=delivery.text,
            button=delivery.button,
            attachments=delivery.attachments,
            accepted_at=moment.at,
            attempts=0,
        )
        user = User(uuid4(), CHANNEL, delivery.senders[0], {})
        turn = Turn([message], user, Session(session, moment.at, {}), self._outputs, threading.Event())
        answer = handle(turn)
        self._outputs.save(session, turn.effects(answer).get("tool_calls", []))
        return answer


class Outputs(Memory):
    """Tool outputs, by session: what a turn can read of its own."""

    def __init__(self) -> None:
        self._saved: dict[tuple[UUID, str], Any] = {}

    def save(self, session: UUID, outputs: Sequence[dict[str, Any]]) -> None:
        """Keep the newest output of each name."""
        self._saved.update({(session, output["name"]): output["output"] for output in outputs})

    def tool_output(self, session_id: UUID, name: str) -> Any:
        """Return the output of that name, or None."""
        return self._saved.get((session_id, name))

    def history(self, session_id: UUID, limit: int) -> list[HistoryLine]:  # noqa: ARG002 - this bot reads none
        """Return no lines: this bot does not read them."""
        return []

    def sessions_with(self, name: str) -> list[UUID]:
        """Return the sessions that hold an output of that name."""
        return [session for session, saved in self._saved if saved == name]


def _cross(bot: NaiveBot, first: Moment, second: Moment) -> None:
    """Receive two requests so that both have read before either acts, and the first acts first."""
    both_have_read, first_is_done = threading.Barrier(2, timeout=MEET_S), threading.Event()

    def come_first() -> None:
        try:
            bot.receive(first, both_have_read.wait)
        finally:
            first_is_done.set()

    def let_the_first_act() -> None:
        both_have_read.wait()
        first_is_done.wait(MEET_S)

    with ThreadPoolExecutor(2) as threads:
        for request in (threads.submit(come_first), threads.submit(bot.receive, second, let_the_first_act)):
            request.result()
