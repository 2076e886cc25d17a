"""A user's turns in memory: begun, handled and settled as `sql/functions/begin_turn.sql` and `settle_turn.sql` do."""

from collections.abc import Callable
from copy import deepcopy
from datetime import datetime, timedelta
from functools import partial

from onelane.channels import Provider
from onelane.channels.senders import Senders
from onelane.config import Channel, Settings
from onelane.model import Failure, JsonObject, Message, SessionRead, TurnRead, UserRead
from onelane.policy import Policy
from onelane.testing.bot.files import Files
from onelane.testing.bot.in_memory.history import Commit, after_lost
from onelane.testing.bot.in_memory.inbox import CLAIMED_MAX, Batches, Waiting
from onelane.testing.bot.in_memory.people import UserRecord
from onelane.testing.bot.in_memory.running import Run, Running
from onelane.testing.bot.in_memory.sessions import SessionRecord, end_by_policy
from onelane.testing.bot.in_memory.turn_memory import TurnMemory
from onelane.testing.bot.settings import CHANNEL
from onelane.turns.bots import Bots


class Turns:
    """Runs the turns of all users."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        bots: Bots,
        provider: Provider,
        now: Callable[[], datetime],
        failures: list[str],
        arrive: Callable[[], object],
    ) -> None:
        """`arrive` accepts what is to come while a turn runs."""
        self._settings = settings
        self._channel: Channel = settings.channels[CHANNEL]
        self._policy = policy
        self._now = now
        self._batches = Batches(policy)
        self.senders = Senders({CHANNEL: provider})
        apologies = self.senders.apologies(settings.channels)
        self.commit = Commit(apologies.get(CHANNEL, []), after_lost(self._channel, provider.sender))
        self._bots = bots
        self._running = Running(settings, bots, self.senders, failures, arrive)
        self.files = Files()
        self.crashes_after: str | None = None
        self._taken_over: set[int] = set()

    def work_off(self, user: UserRecord) -> None:
        """Run turns until nothing of the user's can be done now."""
        while user.inbox and not user.is_paused and (user.inbox[0].not_before or self._now()) <= self._now():
            session = self._session(user)
            if user.inbox[0].is_busy:
                self.commit.rejected(user, session)
            else:
                self._take_turn(user, session, self._begun(user, session))

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

    def _take_turn(self, user: UserRecord, session: SessionRecord, turn: TurnRead) -> None:
        run = self._run(user, session, turn)
        crash, self.crashes_after = self.crashes_after, None
        if crash != "handler":
            self._settle(user, session, run)
        if crash is not None:
            self._taken_over.add(id(user))

    def _run(self, user: UserRecord, session: SessionRecord, turn: TurnRead) -> Run:
        claim, overtaken = partial(self._claimed, user, session), partial(self._is_overtaken, user, session)
        return self._running.run(turn, TurnMemory(user, turn, self.files, claim, overtaken))

    def _claimed(self, user: UserRecord, session: SessionRecord, seq: int) -> list[Message]:
        lowest = user.inbox[0]
        lowest.batch_last = self._batches.last(user.inbox, session, CLAIMED_MAX)
        return [one.message for one in user.inbox if seq < one.seq <= lowest.batch_last]

    def _is_overtaken(self, user: UserRecord, session: SessionRecord) -> bool:
        """Whether newer messages throw the turn away that runs."""
        lowest = user.inbox[0]
        if self._channel.on_busy != "interrupt" or lowest.superseded >= self._channel.interrupt_max:
            return False
        is_full = sum(one.seq <= (lowest.batch_last or 0) for one in user.inbox) >= self._policy.batch_max
        return not is_full and self._batches.last(user.inbox, session, 1) != lowest.batch_last

    def _settle(self, user: UserRecord, session: SessionRecord, run: Run) -> None:
        lowest = user.inbox[0]
        if user.version != run.turn.version:
            return  # stale: it runs again
        if run.is_interrupted:
            lowest.superseded, lowest.batch_last = lowest.superseded + 1, None
            lowest.steps.clear()
        elif run.handled.failure is not None:
            self._fail(user, session, run.turn, run.handled.failure)
        else:
            self.commit.processed(user, session, run.turn, run.handled.effects)

    def _fail(self, user: UserRecord, session: SessionRecord, turn: TurnRead, failure: Failure) -> None:
        lowest, attempts_max = user.inbox[0], self._settings.attempts_max
        if failure.waits and self._may_wait(lowest):
            pause_s = self._settings.retry_base_s if failure.asked_s is None else failure.asked_s
            lowest.counts(laters=lowest.message.laters + 1)
            lowest.not_before = self._now() + timedelta(seconds=pause_s)
            return
        is_last = lowest.message.attempts + 1 >= attempts_max
        if is_last and len(turn.messages) == 1 and self._channel.poison != "park":
            self.commit.dead(user, session, turn, self._word_of_bot(user, session, turn, failure))
            return
        lowest.counts(attempts=lowest.message.attempts + 1)
        if is_last and len(turn.messages) == 1:
            user.is_paused = True
        elif is_last:  # one of them is to blame: each runs alone from now on, once
            for one in user.inbox:
                if one.seq <= turn.message.seq:
                    one.batch_last = one.seq
                    one.counts(attempts=attempts_max - 1)

    def _word_of_bot(
        self, user: UserRecord, session: SessionRecord, turn: TurnRead, failure: Failure
    ) -> JsonObject | None:
        """Return what the bot itself does about a message that dies; None: nothing."""
        if not self._bots.answers_failures(turn):
            return None
        run = self._run(user, session, turn.model_copy(update={"failure": failure}))
        return None if run.handled.failure else run.handled.effects

    def _may_wait(self, one: Waiting) -> bool:
        one.later_since = one.later_since or self._now()
        return self._now() - one.later_since < timedelta(seconds=self._settings.later_max_s)
