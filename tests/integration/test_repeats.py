"""Every call names what it is about: asked again word for word, its reply lost, it changes nothing more.

Whatever happened in between: the client cannot know, and repeats what may have been done. The statements are those
that the client itself sends, over a database whose replies are lost.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

import onelane
import onelane_web
from onelane.bootstrap import Services
from onelane.bot.reply import Reply
from onelane.channels import Inbound, provider_of
from onelane.config import Channel, Settings
from onelane.deliveries import Delivery, Status
from onelane.failures import Failures
from onelane.gathering import Gatherer
from onelane.inbox.intake import Intake
from onelane.inbox.quarantine import Quarantine
from onelane.inbox.statuses import Statuses
from onelane.lanes.enqueueing import Enqueueing
from onelane.model import Failure, Lease, TurnRead
from onelane.operations.acts import Acts
from onelane.operations.audit import record
from onelane.operations.replies import ReplyActs
from onelane.postgres.connection import Row
from onelane.postgres.db import Database, Params
from onelane.postgres.migrations import shipped_code
from onelane.processes.requeued import Requeued
from onelane.saying import Saying
from onelane.sessions import Sessions, publish_policies
from onelane.turns.records import Records
from tests import loops
from tests.by_hand import ByHand
from tests.calls import Calls, Item, delivery, lease, sent, settlement
from tests.conftest import SECRET
from tests.rows import EMPTIED, Rows


class LosesReplies(Database):
    """Repeats each statement word for word, as the client does when its reply is lost. `between` happens once."""

    def __init__(self, settings: Settings, between: Callable[[], object]) -> None:
        super().__init__(settings.database_url, pooler=settings.pg_pooler)
        self.asked: set[str] = set()
        self.changed_again: list[str] = []
        self._between: Callable[[], object] | None = between

    def _tried(self, deadline_s: float, query: str, params: Params) -> list[Row]:
        self.asked.update(re.findall(r"(\w+)\(", query))
        before = self._content()
        super()._tried(deadline_s, query, params)
        if self._between and self._content() != before:
            between, self._between = self._between, None
            between()
        before = self._content()
        rows = super()._tried(deadline_s, query, params)
        self.changed_again += [line for line in self._content() if line not in before]
        return rows

    def _content(self) -> list[str]:
        """Read all that Postgres holds."""
        query = " UNION ALL ".join(f"SELECT t::text AS line FROM {table} t" for table in EMPTIED)
        return [row.line for row in super()._tried(10, query, None)]


class Meanwhile(Database):
    """Lets something happen once, after the first statement."""

    def __init__(self, settings: Settings, happens: Callable[[], object]) -> None:
        super().__init__(settings.database_url, pooler=settings.pg_pooler)
        self._happens: Callable[[], object] | None = happens

    def _within(self, deadline_s: float, query: str, params: Params) -> list[Row]:
        rows = super()._within(deadline_s, query, params)
        happens, self._happens = self._happens, None
        if happens:
            happens()
        return rows


class Story:
    """A user who wrote, and everything that acts on them."""

    def __init__(self, services: Services, settings: Settings) -> None:
        self.services, self.settings = services, settings
        self.user = ByHand(services.database)
        self.message_id = self.user.say().message_id
        self.database = LosesReplies(settings, self.between)
        self.sessions = Sessions(self.database, services.lanes)
        self.acts = Acts(self.database, services.lanes, self.sessions)
        self.happens: Callable[[Story], object] = lambda _story: None
        self.fence = 10

    def between(self) -> None:
        """Let happen what happens while the reply is lost."""
        self.happens(self)

    def lease(self, *, taken_over: bool = False) -> Lease:
        """Take the user's lane."""
        self.fence += 1
        return Lease(user_id=self.user.user_id, token="t", fence=self.fence, taken_over=taken_over)

    def records(self, **changes: Any) -> Records:
        """Make a worker's calls, with other settings."""
        settings = self.settings.model_copy(update={"commit_hold_s": 0, **changes})
        return Records(settings, self.database, Event(), {"demo": [{"text": "sorry"}]})

    def turn(self, lease: Lease) -> TurnRead:
        """Begin the user's next turn, without losing a reply."""
        records = Records(self.settings, self.services.database, Event())
        turn = loops.run(records.begin(lease, None, is_first=False)).turn
        assert turn is not None
        return turn

    def fail(self, *, attempts_max: int = 1, poison: str = "skip", **failure: Any) -> None:
        """Run the message's handler in vain."""
        lease = self.lease()
        channel = self.settings.channels["demo"].model_copy(update={"poison": poison})
        records = self.records(attempts_max=attempts_max, channels={"demo": channel})
        loops.run(records.fail(lease, self.turn(lease), Failure(error="E", **failure), Event()))

    # what others do, whose replies arrive

    def work(self, **effects: Any) -> None:
        """Work off all that waits."""
        while (turn := self.user.begin(fence=self.fence + 1)).outcome == "turn":
            self.user.commit(turn, fence=self.fence + 1, **effects)

    def die(self) -> None:
        """Let the next message die."""
        assert self.user.fail(self.user.begin(fence=self.fence), fence=self.fence).outcome == "dead"

    def others(self) -> Acts:
        """Act as another operator."""
        return self.services.acts

    def next_session(self) -> None:
        """End the session, and let the next message open another."""
        self.work()
        self.others().end_session(self.user.user_id, by="bob")
        self.user.say()
        self.work()

    def redriven(self) -> None:
        """Let the dead message wait again."""
        assert self.others().retry(self.message_id, by="bob").did


def _quarantined(story: Story) -> None:
    request = Inbound(url="https://here/?a=b", headers={}, content_type="application/json", body=b"\0{")
    Quarantine(story.database, 10, 1).keep("demo", request, ["body: must be valid JSON"])


def _status(state: str) -> Callable[[Story], None]:
    """Note what became of a reply."""

    def note(story: Story) -> None:
        failures = Failures(story.database, Enqueueing(story.services.lanes))
        statuses = Statuses(story.database, {}, story.services.out_lanes, failures)
        statuses.note("demo", [Status(provider_id="p1", state=state, key=_reply(story))])

    return note


def _reply(story: Story) -> UUID:
    reply_id: UUID = Rows(story.services.database).replies(story.user.user_id)[0].id
    return reply_id


def _replied(story: Story) -> None:
    story.work(replies=[{"text": "hello"}])


def _reply_acts(story: Story) -> ReplyActs:
    return ReplyActs(
        story.database, story.services.out_lanes, Failures(story.database, Enqueueing(story.services.lanes))
    )


def _on_reply(query: str) -> Callable[[Story], object]:
    """Do something to the reply past all calls."""
    return lambda story: story.services.database.rows(query.replace("REPLY", f"'{_reply(story)}'"))


def _say(story: Story) -> None:
    sends = provider_of(Channel(provider="standard", secrets=(SECRET,), reply_url="https://replies.example"))
    Saying(story.database, Enqueueing(story.services.out_lanes), {"demo": sends}, {}).say(
        "demo", "carol", Reply("hi"), "k"
    )


def _failed(story: Story) -> None:
    _replied(story)
    _on_reply("SELECT fail_reply(REPLY, 'blocked', '')")(story)


def _unknown(story: Story) -> None:
    _replied(story)
    _on_reply("UPDATE outbox SET state = 'unknown', unknown_since = now() WHERE id = REPLY")(story)


def _say_more(story: Story) -> None:
    story.user.say()
    story.work(replies=[{"text": "more"}])


def _begun(story: Story) -> None:
    _replied(story)
    Calls(story.services.database).begin_sends(lease(story.user.user_id))


def _take_over(story: Story) -> None:
    """Find what another was sending. (What one sends oneself has a new time with each call.)"""
    Calls(story.database).begin_sends(lease(story.user.user_id, 2))


def _settle_send(outcome: str) -> Callable[[Story], object]:
    """Settle what is being sent."""

    def settle(story: Story) -> None:
        [begun] = Calls(story.services.database).begin_sends(lease(story.user.user_id))
        Calls(story.database).settle_sends(sent(begun, outcome))

    return settle


def _held(story: Story) -> None:
    story.services.database.rows(
        "INSERT INTO channel_holds (channel, broken_at, word, probe_at) VALUES ('demo', now(), 'denied', now())"
    )


class Case(NamedTuple):
    """What the client does, after what, and what happens while its reply is lost."""

    asks: Callable[[Story], object]
    between: Callable[[Story], object] = Story.next_session
    after: Callable[[Story], object] = lambda story: None


def _accept(story: Story) -> None:
    gatherer = Gatherer(story.database.asks("accept"))
    intake = Intake(story.settings, gatherer, story.database.breaker, Enqueueing(story.services.lanes))
    intake.accept("demo", [Delivery(senders=("bob",), external_id="b1", text="hello")])


def _bob_is_answered(story: Story) -> None:
    bob = ByHand(
        story.services.database,
        user_id=Rows(story.services.database).ask("SELECT user_id AS id FROM user_aliases WHERE alias = 'bob'").id,
    )
    bob.turn(end="handler")
    bob.say()


def _begin(story: Story) -> None:
    loops.run(story.records().begin(story.lease(taken_over=True), None, is_first=True))


def _commit(story: Story) -> None:
    lease = story.lease()
    effects = {"replies": [{"text": "yes", "attachments": []}], "user_state": {"n": 1}, "end": "handler"}
    loops.run(story.records().commit(lease, story.turn(lease), effects, Event()))


def _batch_of(story: Story) -> Item:
    """Name a turn that answers the user's only message, and is running."""
    return settlement(Calls(story.services.database).begin(lease(story.user.user_id))[0])


def _answered(story: Story) -> None:
    """Take the batch over, and answer it."""
    calls = Calls(story.services.database)
    [begun] = calls.begin(lease(story.user.user_id, 2))
    assert calls.settle(settlement(begun, 2))[0]["outcome"] == "committed"


def _claim(story: Story) -> None:
    story.services.database.rows("UPDATE channel_policies SET batch_max = 5")
    batch = _batch_of(story)
    story.user.say()
    story.database.rows("SELECT claim_newer(%s)", (Jsonb(batch),))


def _keep_step(story: Story) -> None:
    kept = {**_batch_of(story), "key": "model 1", "value": {"answer": 42}}
    story.database.rows("SELECT keep_step(%s)", (Jsonb(kept),))


def _requeue(story: Story) -> None:
    requeued = Requeued(story.database, story.services.lanes)
    requeued._waits_again(story.user.user_id, str(story.message_id))


def _policies(story: Story) -> None:
    publish_policies(story.database, (story.settings.policies[0].model_copy(update={"idle_timeout_s": 77}),))


def _ask(query: str) -> Callable[[Story], object]:
    return lambda story: story.database.rows(query)


def _user(act: str) -> Callable[[Story], object]:
    return lambda story: getattr(story.acts, act)(story.user.user_id, by="ann")


def _message(act: str) -> Callable[[Story], object]:
    return lambda story: getattr(story.acts, act)(story.message_id, by="ann")


def _other(act: str) -> Callable[[Story], object]:
    return lambda story: getattr(story.others(), act)(story.user.user_id, by="bob")


def _steps(*steps: Callable[[Story], object]) -> Callable[[Story], object]:
    def each(story: Story) -> None:
        for step in steps:
            step(story)

    return each


def _escalated(story: Story) -> None:
    story.work()
    assert story.others().escalate(story.user.user_id, by="bob")


def _sweep(story: Story) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    Sessions(story.database, story.services.lanes, now=lambda: tomorrow).sweep()


def _end_by_hand(story: Story) -> None:
    session_id = Rows(story.services.database).sessions(story.user.user_id)[-1].id
    story.database.rows("SELECT end_session(%s, now(), 'operator')", (session_id,))


def _ahead(story: Story) -> None:
    story.user.say(datetime.now(UTC) + timedelta(days=1))
    story.work()


def _fit_time(story: Story) -> None:
    story.sessions.fit_time(story.user.user_id)


def _paused(story: Story) -> None:
    assert story.others().pause(story.user.user_id, by="bob").did


def _event(name: str, nr: int = 1, **what: Any) -> Callable[[Story], object]:
    """Let the provider say something of the user."""

    def happens(story: Story) -> None:
        sender = Rows(story.services.database).user(story.user.user_id).sender
        item = {**delivery(sender, f"{name} {nr}", "", kind="event", event=name), **what}
        assert Calls(story.services.database).accept(item)[0]["outcome"] == "accepted"

    return happens


def _bob_writes(story: Story) -> None:
    Calls(story.services.database).accept(delivery("bob", f"b{story.fence}"))
    story.fence += 1


def _merge(story: Story) -> None:
    bob = Rows(story.services.database).user_of("demo", "bob")
    assert story.acts.merge(story.user.user_id, bob, by="ann")


CASES: dict[str, dict[str, Case]] = {
    "accept": {"and its message was answered": Case(_accept, _bob_is_answered)},
    "begin_turns": {
        "and the next message came": Case(_begin, lambda story: story.user.say()),
        "and a dead message was redriven": Case(
            _begin, Story.redriven, _steps(lambda story: story.user.say(), Story.die)
        ),
    },
    "settle_turns": {
        "and the next session began": Case(_commit),
        "and the failed attempt was the first of two": Case(lambda story: story.fail(attempts_max=2), Story.others),
        "and the dead message was redriven": Case(Story.fail, Story.redriven),
        "and the apologised message was redriven": Case(lambda story: story.fail(poison="apologise"), Story.redriven),
        "and the parked user was resumed": Case(lambda story: story.fail(poison="park"), _other("resume")),
        "and another failed": Case(
            lambda story: story.fail(attempts_max=3),
            lambda story: story.user.fail(story.user.begin(fence=99), fence=99, attempts_max=3),
        ),
        "and it waited for something": Case(lambda story: story.fail(waits=True, asked_s=5), Story.others),
    },
    "pause_user": {"and another resumed the user": Case(_user("pause"), _other("resume"))},
    "resume_user": {"and another paused the user": Case(_user("resume"), _paused, _paused)},
    "request_session_end": {
        "and the next session began": Case(_user("end_session"), after=Story.work),
        "and the noted end took effect, and the next session began": Case(_user("end_session")),
    },
    "escalate_session": {
        "and the next session began": Case(_user("escalate"), after=Story.work),
        "and the waiting message opened its session, and the next began": Case(_user("escalate")),
        "and another handed it back": Case(_user("escalate"), _other("hand_back"), Story.work),
        "and another handed back what waited": Case(_user("escalate"), _other("hand_back")),
        "and another took back what was noted": Case(
            _user("escalate"), _other("hand_back"), _steps(_other("end_session"), lambda story: story.user.say())
        ),
        "and another handed it back and escalated it": Case(
            _user("escalate"), _steps(_other("hand_back"), _other("escalate")), Story.work
        ),
    },
    "hand_back_session": {
        "and the next session was escalated": Case(
            _user("hand_back"), _steps(Story.next_session, _escalated), _escalated
        ),
        "and another escalated it": Case(_user("hand_back"), _other("escalate"), _escalated),
    },
    "fit_time": {"and another message came": Case(_fit_time, lambda story: story.user.say(), after=_ahead)},
    "merge_users": {"and the loser wrote again": Case(_merge, _bob_writes, _bob_writes)},
    "confirm_user": {
        "and the owner changed again": Case(
            _user("confirm"),
            _event("identity_changed", 2, has_new_owner=True),
            _event("identity_changed", has_new_owner=True),
        )
    },
    "opt_in_user": {"and the user opted out again": Case(_user("opt_in"), _event("opted_out", 2), _event("opted_out"))},
    "claim_newer": {"and the batch was answered": Case(_claim, _answered)},
    "keep_step": {"and the batch was answered": Case(_keep_step, _answered)},
    "redrive_message": {
        "and it died again": Case(_message("retry"), Story.die, Story.die),
        "and it died again after RQ's requeue": Case(_requeue, Story.die, Story.die),
    },
    "drop_message": {
        "and nothing happened": Case(_message("drop"), Story.others, Story.die),
        "and it was redriven and died again": Case(
            _message("drop"),
            _steps(lambda story: story.user.rows.redrive(story.message_id), Story.die),
            Story.die,
        ),
    },
    "end_session": {"and the next session began": Case(_end_by_hand, after=Story.work)},
    "sweep_sessions": {"and nothing happened": Case(_sweep, Story.others, Story.work)},
    "publish_policy": {"and nothing happened": Case(_policies, Story.others)},
    "forget_deliveries": {
        "and more came": Case(_ask("SELECT * FROM forget_deliveries(0, '-infinity', 1000)"), Story.others)
    },
    "forget_statuses": {"and more came": Case(_ask("SELECT forget_statuses(clock_timestamp(), 1000)"), Story.others)},
    "forget_quarantined": {"and more came": Case(_ask("SELECT forget_quarantined(1000)"), Story.others)},
    "forget_files": {"and more came": Case(_ask("SELECT forget_files(1000)"), Story.others)},
    "quarantine": {"and nothing happened": Case(_quarantined, Story.others)},
    "begin_sends": {"and a second reply came": Case(_take_over, _say_more, _begun)},
    "settle_sends": {
        "and its provider said that it failed": Case(
            _settle_send("accepted"), _on_reply("SELECT fail_reply(REPLY, 'blocked', '')"), _replied
        ),
        "and it failed, and was sent again": Case(
            _settle_send("never"), _on_reply("SELECT resend_reply(REPLY)"), _replied
        ),
        "and it was begun again": Case(
            _settle_send("not_now"),
            lambda story: Calls(story.services.database).begin_sends(lease(story.user.user_id, 2)),
            _replied,
        ),
    },
    "note_statuses": {
        "and more came": Case(_status("delivered"), _status("read"), _replied),
        "and the reply was sent again": Case(_status("failed"), _on_reply("SELECT resend_reply(REPLY)"), _replied),
    },
    "say": {"and more was said": Case(_say, Story.others)},
    "tell_failures": {
        "and another reply failed": Case(
            lambda story: Failures(story.database, Enqueueing(story.services.lanes)).tell(),
            Story.others,
            _failed,
        )
    },
    "resend_reply": {
        "and it failed again": Case(
            lambda story: _reply_acts(story).resend(_reply(story), by="ann"),
            _on_reply("SELECT fail_reply(REPLY, 'blocked', '')"),
            _failed,
        )
    },
    "settle_reply": {
        "and it was sent again": Case(
            lambda story: _reply_acts(story).settle(_reply(story), "failed", by="ann"),
            _on_reply("SELECT resend_reply(REPLY)"),
            _unknown,
        )
    },
    "drop_reply": {
        "and it was sent again": Case(
            lambda story: _reply_acts(story).drop(_reply(story), by="ann"),
            _on_reply("SELECT resend_reply(REPLY)"),
            _unknown,
        )
    },
    "open_channel": {
        "and its provider refused it again": Case(
            lambda story: _reply_acts(story).open_channel("demo", by="ann"), _held, _held
        )
    },
    "get_or_create_session": {
        "and another message came": Case(
            lambda story: story.database.rows("SELECT get_or_create_session(%s)", (story.user.user_id,)),
            lambda story: story.user.say(),
        )
    },
    "forget_user": {
        "and another redrove": Case(
            lambda story: story.database.rows("SELECT forget_user(%s, '{}', '[]')", ([story.user.user_id],)),
            lambda story: story.others().redrive(story.user.user_id, by="bob"),
        )
    },
    "forget_history": {
        "and another redrove": Case(
            lambda story: story.database.rows("SELECT forget_history(%s, NULL)", ([story.user.user_id],)),
            lambda story: story.others().redrive(story.user.user_id, by="bob"),
        )
    },
    "record_act": {
        "and another acted": Case(
            lambda story: record(story.database, "ann", "text_shown", story.user.user_id), _paused
        )
    },
    "probe": {"and nothing happened": Case(lambda story: story.database.probe(), Story.others)},
}


def test_an_act_on_a_named_session_is_not_done_to_the_next(services: Services, accept: Callable[..., Any]) -> None:
    user = ByHand(services.database, user_id=accept("alice").user_id)
    first = user.turn().session_id
    assert services.acts.end_session(user.user_id, first, by="ann") == "operator"
    user.say()
    second = user.turn().session_id
    for act in (services.acts.end_session, services.acts.escalate):
        assert act(user.user_id, first, by="ann") is None
    assert services.acts.escalate(user.user_id, second, by="ann") == second
    assert services.acts.hand_back(user.user_id, first, by="ann") is None
    assert services.acts.hand_back(user.user_id, second, by="ann") == second
    assert services.acts.end_session(user.user_id, second, by="ann") == "operator"


def test_a_resume_that_saw_no_pause_ends_none_that_comes_at_the_same_time(
    services: Services, settings: Settings
) -> None:
    story = Story(services, settings)
    story.happens = lambda story: None
    database = Meanwhile(settings, lambda: story.others().pause(story.user.user_id, by="bob"))
    assert not Acts(database, services.lanes, story.sessions).resume(story.user.user_id, by="ann").did
    database.close()
    story.database.close()
    assert story.user.begin().outcome == "paused"


def _called_by_the_client() -> set[str]:
    """Name the SQL functions that the client calls and that may change something."""
    sources = [path for package in (onelane, onelane_web) for path in Path(package.__path__[0]).rglob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    changing = {
        name.removeprefix("functions/")
        for name, body in shipped_code().items()
        if name.startswith("functions/") and not re.search(r"^LANGUAGE \w+ (STABLE|IMMUTABLE)", body, re.MULTILINE)
    }
    calls = set(re.findall(r"(?:SELECT|FROM|THEN) (?:\* FROM )?(\w+)\(", text)) | set(
        re.findall(r'(?:asks?|_call)\(\s*"(\w+)"', text)
    )
    return changing & calls


def test_every_function_that_the_client_calls_and_that_changes_something_is_asked_again_here() -> None:
    assert _called_by_the_client() == set(CASES)


@pytest.mark.parametrize(
    ("function", "case"),
    [pytest.param(name, case, id=f"{name} {what}") for name, cases in CASES.items() for what, case in cases.items()],
)
def test_a_call_asked_again_changes_nothing_more(
    services: Services, settings: Settings, function: str, case: Case
) -> None:
    story = Story(services, settings)
    case.after(story)
    story.happens = case.between
    try:
        case.asks(story)
    finally:
        story.database.close()
    assert function in story.database.asked
    assert story.database.changed_again == []
