"""What a provider delivers, on real servers: accepted, worked off and sent as in production."""

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final
from uuid import UUID

from onelane import past
from onelane.bootstrap import Worker, open_worker
from onelane.config import Settings
from onelane.history import Line
from onelane.model import Attachment, Upload
from onelane.testing.bot.answer import Outcome, SessionSeen
from onelane.testing.bot.clock import Clock
from onelane.testing.bot.engine import Item, Known
from onelane.testing.bot.files import Files
from onelane.testing.bot.real.crash import Crash
from onelane.testing.bot.real.servers import fakes_of, servers
from onelane.testing.bot.real.watched import Watched
from onelane.testing.bot.settings import CHANNEL
from onelane.testing.fake_providers.faults import Fault
from onelane.testing.fake_providers.running import ADDRESSES
from onelane.turns.bots import Bot, Bots

QUICK: Final = {
    "lock_ttl_s": 2.0,
    "retry_base_s": 0.05,
    "retry_max_s": 0.2,
    "stall_limit_s": 600,
    "unknown_hold_s": 0.05,
    "worker_slots": 8,
}
"""A test waits for no retry, and for no status of a provider; and a process that a debugger holds is not ended."""
COLLECT_QUIET_S: Final = 0.05
"""What comes at once in a test is together by then."""
REFUSALS: Final = {
    "meta": "131026",
    "slack": "channel_not_found",
    "telegram": "403",
    "twilio": "21610",
}
"""A code of each provider by which it will never take a reply."""
GRACE_S: Final = 600.0
QUIET_WITHIN_S: Final = 60.0
POLL_S: Final = 0.005
BUSY = """
SELECT EXISTS (SELECT FROM inbox i JOIN users u ON u.id = i.user_id WHERE u.paused_at IS NULL AND i.laters = 0)
    OR EXISTS (SELECT FROM failures_to_tell)
    OR EXISTS (SELECT FROM outbox WHERE not_before IS NULL) AS is_busy
"""
KNOWN = """
SELECT u.id, u.state FROM user_aliases a JOIN users u ON u.id = a.user_id WHERE a.channel = %s AND a.alias = %s
"""
SESSIONS = "SELECT * FROM conversation_sessions WHERE user_id = %s ORDER BY started_at, created_at"
APART = """
SELECT 'bot' AS role, turn_seq AS seq, accepted_at AS at, text, coalesce(parts -> 'buttons', '[]') AS buttons, state
  FROM messages WHERE user_id = %s AND session_id IS NULL AND direction = 'out' ORDER BY turn_seq, ordinal
"""
STATE = "SELECT state FROM messages WHERE channel = %s AND external_id = %s AND direction = 'in'"


class Real:
    """The service on embedded servers."""

    def __init__(self, settings: Settings, bot: Bot, clock: Clock) -> None:
        """Start the servers, unless this process has, and a worker in this process."""
        self.failures: list[str] = []
        self._arriving: list[Item] = []
        self._files = Files()
        watched = Watched(self.failures, self._arrive, self._returned)
        own = {
            **QUICK,
            "shutdown_grace_s": GRACE_S,
            **settings.model_dump(include=settings.model_fields_set & set(QUICK)),
        }
        channel = settings.channels[CHANNEL].model_copy(update={"collect_quiet_s": COLLECT_QUIET_S})
        self._provider = channel.provider
        self._closing = ExitStack()
        self._fakes = self._closing.enter_context(fakes_of(channel)) if channel.provider in ADDRESSES else None
        channel = self._fakes.pointed(CHANNEL, channel) if self._fakes else channel
        settings = settings.model_copy(update={**own, **servers().fresh(), "channels": {CHANNEL: channel}})
        self._worker: Worker = open_worker(settings, now=clock, bots=Bots(watched.bot(bot)), files=self._files)
        self._services = self._worker.services
        self._crash = Crash(self._services.lanes.client)
        self._thread = threading.Thread(target=self._worker.run, name="worker under test", daemon=True)
        self._thread.start()

    def accept(self, items: Sequence[Item]) -> list[bool]:
        """Accept what one request holds; of each, whether it is new."""
        return [not one.duplicate for one in self._services.intake.accept(CHANNEL, items)]

    def work_off(self) -> None:
        """Wait until nothing can be done now, and every reply is sent."""
        ends = time.monotonic() + QUIET_WITHIN_S
        while self._row(BUSY).is_busy:
            if time.monotonic() > ends:
                raise TimeoutError(f"the bot did not come to rest within {QUIET_WITHIN_S:g} s")
            time.sleep(POLL_S)

    def outcome(self, external_id: str) -> Outcome:
        """Return what became of a message."""
        row = self._row(STATE, CHANNEL, external_id)
        return Outcome(row.state) if row else Outcome.WAITING

    def known(self, name: str) -> Known | None:
        """Return what is known of the user whom a provider names so."""
        user = self._row(KNOWN, CHANNEL, name)
        if user is None:
            return None
        rows = self._services.database.rows(SESSIONS, (user.id,))
        return Known(user.id, user.state, [SessionSeen.model_validate(row._asdict()) for row in rows])

    def lines(self, user_id: UUID) -> list[Line]:
        """Return the lines of all sessions of a user, the oldest first."""
        database = self._services.database
        lines = [line for one in database.rows(SESSIONS, (user_id,)) for line in past.lines(database, one.id, 1_000)]
        said_apart = [Line.model_validate(row._asdict()) for row in database.rows(APART, (user_id,))]
        return sorted([*lines, *said_apart], key=lambda line: line.seq)

    def hand_back(self, user_id: UUID) -> None:
        """Give the user's session back to the bot."""
        self._services.sessions.hand_back(user_id)

    def arrives_during_next_turn(self, items: Sequence[Item]) -> None:
        """Accept these while the next turn runs."""
        self._arriving += items

    def keep(self, file: Upload) -> Attachment:
        """Keep a file's bytes for `turn.fetch`, and describe it as a provider would."""
        return self._files.keep(file)

    def crash_next(self, after: str) -> None:
        """Let the next turn's worker die."""
        self._crash.after = after

    def refuse_next(self) -> None:
        """Let the provider refuse the next reply."""
        if self._provider not in REFUSALS:
            raise NotImplementedError("this provider refuses no reply for good; meta, slack, telegram and twilio do")
        self._plan(Fault("answer", code=REFUSALS[self._provider]))

    def lose_next(self) -> None:
        """Let the provider take the next reply, and its answer be lost."""
        self._plan("accept_and_drop")

    def close(self) -> None:
        """Stop the worker."""
        self._worker.stop()
        self._thread.join()
        self._closing.close()

    def _plan(self, fault: str | Fault) -> None:
        if self._fakes is None:
            raise NotImplementedError(f"{self._provider} sends nothing out of this process: nothing goes wrong")
        self._fakes.plan(fault, channel=CHANNEL)

    def _arrive(self) -> None:
        arriving, self._arriving = self._arriving, []
        self.accept(arriving)

    def _returned(self, turn: Any) -> None:
        self._crash.strike(turn)

    def _row(self, query: str, *params: object) -> Any:
        return self._services.database.row(query, params)
