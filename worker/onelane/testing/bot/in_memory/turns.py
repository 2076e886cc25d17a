"""A user's turns in memory: begun, handled and settled as `sql/functions/begin_turn.sql` and `settle_turn.sql` do."""

from collections.abc import Callable, Coroutine
from copy import deepcopy
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast
from uuid import uuid4

from onelane.channels.senders import Senders
from onelane.config import Channel, Settings
from onelane.lanes.holding import Holding
from onelane.model import Failure, Lease, Message, SessionRead, TurnRead, UserRead
from onelane.policy import Policy
from onelane.testing.bot.in_memory.files import Files
from onelane.testing.bot.in_memory.history import Commit
from onelane.testing.bot.in_memory.host import InlineHost, InlineThread
from onelane.testing.bot.in_memory.inbox import CLAIMED_MAX, Batches, Waiting
from onelane.testing.bot.in_memory.people import UserRecord
from onelane.testing.bot.in_memory.sessions import SessionRecord, end_by_policy
from onelane.testing.bot.in_memory.turn_memory import TurnMemory
from onelane.testing.bot.settings import CHANNEL
from onelane.turns.bots import Bots
from onelane.turns.handling import Handled, Handling


class NoUploads:
    """Keeps no bytes: nobody sends them."""

    def keep(self, *_what: object) -> None:
        """Do nothing."""


class Turns:
    """Runs the turns of all users."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        bots: Bots,
        senders: Senders,
        now: Callable[[], datetime],
        failures: list[str],
        arrive: Callable[[], object],
    ) -> None:
        """`arrive` accepts what is to come while a turn runs."""
        self._settings = settings
        self._channel: Channel = settings.channels[CHANNEL]
        self._policy = policy
        self._now = now
        self._arrive = arrive
        self._batches = Batches(policy)
        self.commit = Commit(senders.apologies(settings.channels).get(CHANNEL, []))
        host = cast("Any", InlineHost(failures, self._begins))
        nothing = cast("Any", None)
        self._handling = Handling(settings, nothing, bots, host, nothing, nothing, senders, cast("Any", NoUploads()))
        self.files = Files()
        self._running: tuple[UserRecord, SessionRecord] | None = None
        self.crashes_after: str | None = None
        self._taken_over: set[int] = set()

    def work_off(self, user: UserRecord) -> None:
        """Run turns until nothing of the user's can be done now."""
        while user.inbox and not user.is_paused and (user.inbox[0].not_before or self._now()) <= self._now():
            session = self._session(user)
            turn = self._begun(user, session)
            self._running = user, session
            self._run(user, session, turn)

    def session_at(self, user: UserRecord, at: datetime) -> SessionRecord:
        """Return the session of what is accepted at an instant: the open one, or a new one if that is over."""
        session = user.open_session
        if session is not None:
            ends_at, reason = end_by_policy(self._policy, session, session.last_message_at)
            if ends_at > at:
                self._end_escalation(session, at)
                return session
            session.end(min(ends_at, at), reason)
        user.sessions.append(SessionRecord(at, at))
        return user.sessions[-1]

    def _end_escalation(self, session: SessionRecord, at: datetime) -> None:
        since = max(session.escalated_at or session.last_message_at, session.last_message_at)
        if session.status == "escalated" and since + timedelta(seconds=self._policy.escalation_timeout_s) <= at:
            session.status = "active"

    def _session(self, user: UserRecord) -> SessionRecord:
        return self.session_at(user, user.inbox[0].message.accepted_at)

    def _begun(self, user: UserRecord, session: SessionRecord) -> TurnRead:
        lowest = user.inbox[0]
        if id(user) in self._taken_over:
            self._taken_over.discard(id(user))
            lowest.counts(deaths=lowest.message.deaths + 1)
        if lowest.batch_last is None:
            lowest.batch_last = self._batches.last(user.inbox, session, self._policy.batch_max - 1)
        members = [one for one in user.inbox if one.seq <= lowest.batch_last]
        return TurnRead(
            version=user.version,
            messages=tuple(one.message for one in members),
            superseded=lowest.superseded,
            user=UserRead(
                id=user.id,
                channel=CHANNEL,
                sender=user.sender,
                state=deepcopy(user.state),
                last_written_at=user.last_written_at,
            ),
            session=self._session_read(user, session, lowest.message),
        )

    def _session_read(self, user: UserRecord, session: SessionRecord, first: Message) -> SessionRead:
        is_first = not session.lines and first.accepted_at == session.started_at
        before = user.sessions[: user.sessions.index(session)]
        return SessionRead(
            id=session.id,
            status=session.status,
            started_at=session.started_at,
            state=deepcopy(session.state),
            summary=session.summary,
            is_first=is_first,
            previous_summary=before[-1].summary if is_first and before else None,
        )

    def _run(self, user: UserRecord, session: SessionRecord, turn: TurnRead) -> None:
        lease = Lease(user_id=user.id, token=str(uuid4()), fence=1)
        claim = partial(self._claimed, user, session)
        memory, holding = TurnMemory(user, turn, self.files, claim), Holding(lease)
        running = self._handling.run(turn, holding, cast("Any", memory), cast("Any", InlineThread()), is_apart=False)
        turn, handled = _at_once(running)
        crash, self.crashes_after = self.crashes_after, None
        if crash != "handler":
            self._settle(user, session, turn, handled, memory)
        if crash is not None:
            self._taken_over.add(id(user))

    def _begins(self, memory: TurnMemory, holding: Holding) -> None:
        """Let arrive what comes while the turn runs; cancel a turn that it interrupts."""
        self._arrive()
        if self._running and self._is_interrupted(*self._running, memory):
            holding.cancel()

    def _claimed(self, user: UserRecord, session: SessionRecord, seq: int) -> list[Message]:
        lowest = user.inbox[0]
        lowest.batch_last = self._batches.last(user.inbox, session, CLAIMED_MAX)
        return [one.message for one in user.inbox if seq < one.seq <= lowest.batch_last]

    def _is_interrupted(self, user: UserRecord, session: SessionRecord, memory: TurnMemory) -> bool:
        """Whether newer messages throw the turn away."""
        lowest, channel = user.inbox[0], self._channel
        may_be = channel.on_busy == "interrupt" and not memory.is_shielded
        if not may_be or lowest.superseded >= channel.interrupt_max:
            return False
        return self._batches.last(user.inbox, session, 1) != lowest.batch_last

    def _settle(
        self, user: UserRecord, session: SessionRecord, turn: TurnRead, handled: Handled, memory: TurnMemory
    ) -> None:
        if user.version != turn.version:
            return  # stale: it runs again
        lowest = user.inbox[0]
        if self._is_interrupted(user, session, memory):
            lowest.superseded, lowest.batch_last = lowest.superseded + 1, None
            lowest.steps.clear()
        elif handled.failure is not None:
            self._fail(user, session, turn, handled.failure)
        else:
            self.commit.processed(user, session, turn, handled.effects)

    def _fail(self, user: UserRecord, session: SessionRecord, turn: TurnRead, failure: Failure) -> None:
        lowest = user.inbox[0]
        if failure.waits and self._may_wait(lowest):
            pause_s = self._settings.retry_base_s if failure.asked_s is None else failure.asked_s
            lowest.counts(laters=lowest.message.laters + 1)
            lowest.not_before = self._now() + timedelta(seconds=pause_s)
            return
        attempts_max = self._settings.attempts_max
        lowest.counts(attempts=lowest.message.attempts + 1)
        if lowest.message.attempts < attempts_max:
            return
        if len(turn.messages) > 1:  # one of them is to blame: each runs alone from now on, once
            for one in user.inbox:
                if one.seq <= turn.message.seq:
                    one.batch_last = one.seq
                    one.counts(attempts=attempts_max - 1)
        elif self._channel.poison == "park":
            user.is_paused = True
        else:
            self.commit.dead(user, session, turn)

    def _may_wait(self, one: Waiting) -> bool:
        one.later_since = one.later_since or self._now()
        return self._now() - one.later_since < timedelta(seconds=self._settings.later_max_s)


def _at_once(running: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns that waits for nothing."""
    try:
        running.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("in memory nothing waits")
