"""What is forgotten is gone: from Postgres, Redis and quarantine; and nothing of anybody else is."""

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner

from onelane import keys
from onelane.bootstrap import Services, open_services
from onelane.channels.provider import Inbound
from onelane.cli import onelane
from onelane.config import Settings
from onelane.deliveries import Accepted, Delivery
from onelane.dev.embedded.redis import free_port
from onelane.errors import LaneBusy, LanesUnavailable, OnelaneError
from onelane.model import Author
from onelane.operations import forgetting, merging
from onelane.operations.forgetting import Forgotten, export, forget
from onelane.operations.person import spellings_of
from onelane.users import user_of
from tests.by_hand import ByHand
from tests.calls import settlement
from tests.conftest import DEADLINE_S, LogLines, RunWorker, accept_all, deliver, eventually
from tests.dumps import everything_in, everything_in_postgres
from tests.rows import Rows

ROUNDS = 40
PHONE, SCOPED, NAME = "+15550137842", "scoped.7f3a91c2", "Alice Canary"
TEXT, MESSAGE_ID = "canary text of alice", "wamid.canary41"
CANARIES = (
    *(PHONE, SCOPED, NAME, TEXT, MESSAGE_ID),
    *(base64.b64encode(PHONE.encode()).decode().rstrip("="), PHONE.lstrip("+"), MESSAGE_ID + "-reply"),
)


RAW = {"of": [PHONE, TEXT * 99]}
LARGE = [
    *("users", "user_aliases", "conversation_sessions", "messages", "tool_calls", "payloads", "accepted_deliveries"),
    *("provider_messages", "reply_statuses", "takeovers", "steps", "inbox", "outbox", "out_lanes", "audit"),
]
END_ALL = """
UPDATE conversation_sessions
   SET status = 'ended', ended_reason = 'operator', ended_at = now() - interval '1 min',
       started_at = now() - interval '1 min', last_message_at = now() - interval '1 min'
"""
SEEN = {"call_id": "1", "name": "seen", "arguments": {"name": NAME}, "output": TEXT}
WEBHOOKS = (
    f'{{"from": "{PHONE}"}}',
    f"From=whatsapp%3A%2B{PHONE[1:]}",
    base64.b64encode(PHONE.encode()).decode(),
)


def said(**changes: Any) -> Delivery:
    whole = Delivery(
        senders=(PHONE, SCOPED), external_id=MESSAGE_ID, text=TEXT, author=Author(id=SCOPED, name=NAME), raw=RAW
    )
    return whole.model_copy(update=changes)


@pytest.fixture
def alice(services: Services, rows: Rows) -> UUID:
    """A person of whom there is something everywhere."""
    [first] = deliver(services, [said()])
    user = ByHand(services.database, user_id=first.user_id)
    user.turn(replies=[{"text": f"hello {NAME}"}], tool_calls=[SEEN], user_state={"name": NAME})
    [reply] = [row.id for row in services.database.rows("SELECT id FROM outbox")]
    for name in ("-reply", "-reply again"):  # it was sent twice
        services.database.rows("SELECT note_sent(%s, %s, %s, 1, true)", (first.user_id, reply, MESSAGE_ID + name))
    deliver(services, [said(external_id=f"{MESSAGE_ID}-{nr}") for nr in range(3)])
    _die(services, user)
    rows.ask(
        "INSERT INTO reply_statuses (channel, provider_id, state, participant) VALUES ('demo', %s, 'read', %s)"
        " RETURNING state",
        MESSAGE_ID + "-other",
        SCOPED,
    )
    for body in WEBHOOKS:
        services.quarantine.keep("demo", Inbound(url="/", headers={}, content_type="", body=body.encode()), ["a"])
    services.acts.pause(first.user_id, by="ann")
    return first.user_id


def _die(services: Services, user: ByHand) -> None:
    fence = services.lanes.raise_fence(0) + 1
    services.lanes.raise_fence(fence)
    begun = user.begin(fence=fence)
    assert user.fail(begun, fence=fence).outcome == "dead"
    message_id = begun.answer["turn"]["messages"][0]["id"]
    services.lanes.client.xadd(keys.results(message_id), {"exc_string": TEXT})
    services.lanes.client.hset(keys.job(message_id), mapping={"origin": keys.queue_name(user.user_id)})


def found(looked_at: str) -> set[str]:
    return {canary for canary in CANARIES if canary in looked_at}


def test_after_forget_nothing_of_a_person_is_left_anywhere(
    services: Services, alice: UUID, accept: Callable[..., Accepted], log_lines: LogLines
) -> None:
    bob = accept("bob", "of bob")
    assert found(everything_in_postgres(services.database)) == set(CANARIES)
    assert TEXT in everything_in(services.lanes.client).decode()
    assert forget(services, alice, "ann") == Forgotten(messages=3, quarantined=3)
    for dump in (
        everything_in_postgres(services.database),
        everything_in(services.lanes.client).decode(),
        repr(log_lines),
    ):
        assert found(dump) == set()
    assert str(alice) not in everything_in(services.lanes.client).decode()
    assert "of bob" in everything_in_postgres(services.database)
    assert services.lanes.jobs(bob.user_id) == [str(bob.message_id)]
    assert forget(services, alice, "ann") is None


def test_what_outlives_its_session_and_what_was_sent_again_is_forgotten_too(services: Services, alice: UUID) -> None:
    [reply] = [row.id for row in services.database.rows("SELECT id FROM messages WHERE direction = 'out'")]
    services.database.rows("UPDATE messages SET state = 'failed' WHERE id = %s", (reply,))
    services.database.rows("SELECT resend_reply(%s)", (reply,))
    services.database.rows("SELECT note_sent(%s, %s, %s, 1, true)", (alice, reply, MESSAGE_ID + "-reply at last"))
    assert len(services.database.rows("SELECT FROM provider_messages")) == 3
    services.database.rows(END_ALL)
    [done] = services.database.rows(
        "SELECT did.* FROM conversation_sessions s, forget_session(s, 'demo', now(), 100) did"
    )
    assert done.is_gone
    assert services.database.rows("SELECT FROM provider_messages") == []
    assert len(services.database.rows("SELECT FROM accepted_deliveries WHERE is_alone")) == 2
    forget(services, alice, "ann")
    assert found(everything_in_postgres(services.database)) == set()


def test_a_long_history_goes_in_many_transactions_while_the_lanes_are_held(
    services: Services, alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[UUID] = []
    monkeypatch.setattr(forgetting, "LINES_AT_ONCE", 1)
    monkeypatch.setattr(forgetting, "hold_on", lambda lanes, leases: held.extend(leases))
    assert forget(services, alice, "ann") == Forgotten(messages=3, quarantined=3)
    assert held == [alice] * 2 * 3  # both lanes, after each line
    assert found(everything_in_postgres(services.database)) == set()


def test_who_died_while_forgetting_is_forgotten_when_asked_again(
    services: Services, alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(lanes: object, leases: object) -> None:
        raise LaneBusy("a turn has begun")

    with monkeypatch.context() as first:
        first.setattr(forgetting, "LINES_AT_ONCE", 1)
        first.setattr(forgetting, "hold_on", die)
        with pytest.raises(LaneBusy):
            forget(services, alice, "ann")
    assert forget(services, alice, "ann") == Forgotten(messages=2, quarantined=3)
    assert found(everything_in_postgres(services.database)) == set()


def test_a_reply_that_is_resent_while_its_line_goes_leaves_nothing_in_the_outbox(
    services: Services, alice: UUID
) -> None:
    [reply] = [row.id for row in services.database.rows("SELECT id FROM messages WHERE direction = 'out'")]
    services.database.rows("UPDATE messages SET state = 'failed' WHERE id = %s", (reply,))
    services.database.rows("DELETE FROM outbox")
    services.database.rows("DELETE FROM out_lanes")
    with ThreadPoolExecutor(1) as pool:
        with services.database.transaction() as operator:
            operator.execute("SELECT resend_reply(%s)", (reply,))
            going = pool.submit(services.database.rows, "SELECT forget_history(ARRAY[%s], NULL)", (alice,))
            eventually(lambda: operator.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall())
        going.result(DEADLINE_S)
    assert services.database.rows("SELECT FROM messages") == services.database.rows("SELECT FROM outbox") == []


def test_to_forget_reads_no_large_table_from_end_to_end(services: Services, alice: UUID) -> None:
    scans = "SELECT relname, seq_scan FROM pg_stat_xact_user_tables WHERE relname = ANY(%s) ORDER BY relname"
    with services.database.transaction() as transaction:
        before = transaction.execute(scans, (LARGE,)).fetchall()
        transaction.execute("SELECT forget_history(ARRAY[%s], 1), forget_user(ARRAY[%s], '{}', '[]')", (alice, alice))
        assert transaction.execute(scans, (LARGE,)).fetchall() == before


def test_the_audit_keeps_the_acts_without_the_person(services: Services, alice: UUID) -> None:
    forget(services, alice, "ann")
    audit = services.database.rows("SELECT who, act, subject FROM audit ORDER BY nr")
    assert audit == [("ann", "user_paused", None), ("ann", "user_forgotten", None)]


def test_what_is_delivered_again_of_the_forgotten_is_a_duplicate_and_what_is_new_makes_a_new_user(
    services: Services, alice: UUID
) -> None:
    forget(services, alice, "ann")
    [again] = deliver(services, [said()])
    assert again.duplicate
    assert services.database.rows("SELECT FROM users") == []
    [new] = deliver(services, [said(external_id="later")])
    assert not new.duplicate
    assert new.user_id != alice
    assert forget(services, new.user_id, "ann")


def test_all_that_were_merged_are_one_person(services: Services, alice: UUID, accept: Callable[..., Accepted]) -> None:
    other = accept("alice's other number", TEXT)
    services.acts.merge(other.user_id, alice, by="ann")
    forget(services, alice, "ann")
    assert found(everything_in_postgres(services.database)) == set()
    assert services.database.rows("SELECT FROM users") == []


@pytest.fixture
def bob(services: Services, accept: Callable[..., Accepted]) -> UUID:
    """Somebody of whom a dead message's traceback is in Redis."""
    message = accept("bob", "of bob")
    _die(services, ByHand(services.database, user_id=message.user_id))
    return message.user_id


def test_who_is_merged_while_the_lanes_are_waited_for_is_forgotten_in_redis_too(
    services: Services, alice: UUID, bob: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their rows went, and their jobs and tracebacks stayed."""
    merges = iter([lambda: services.acts.merge(alice, bob, by="ann")])

    @contextmanager
    def held(*arguments: Any) -> Iterator[Any]:
        next(merges, lambda: None)()
        with merging.held(*arguments) as leases:
            yield leases

    monkeypatch.setattr(forgetting, "held", held)
    assert forget(services, alice, "ann") == Forgotten(messages=4, quarantined=3)
    dump = everything_in(services.lanes.client).decode()
    assert (found(dump), str(bob) in dump, str(alice) in dump) == (set(), False, False)
    assert services.database.rows("SELECT FROM users") == []


def test_who_is_merged_without_the_lanes_is_not_forgotten_by_half(
    services: Services, alice: UUID, bob: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge that Redis is away for holds no lane."""
    monkeypatch.setattr(forgetting, "LINES_AT_ONCE", 1)
    monkeypatch.setattr(
        forgetting, "hold_on", lambda *_: services.database.rows("SELECT merge_users(%s, %s)", (alice, bob))
    )
    with pytest.raises(LaneBusy):
        forget(services, alice, "ann")
    monkeypatch.undo()
    assert forget(services, alice, "ann") == Forgotten(messages=1, quarantined=3)
    assert found(everything_in(services.lanes.client).decode()) == set()


def test_while_redis_is_away_nobody_is_forgotten_by_half(services: Services, alice: UUID) -> None:
    away = open_services(services.settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"}))
    with pytest.raises(LanesUnavailable):
        forget(replace(services, lanes=away.lanes, out_lanes=away.out_lanes), alice, "ann")
    away.close()
    assert len(services.database.rows("SELECT FROM users WHERE id = %s", (alice,))) == 1


def test_a_turn_of_somebody_forgotten_ends_and_stores_nothing(
    services: Services, accept: Callable[..., Accepted]
) -> None:
    message = accept("alice")
    begun = ByHand(services.database, user_id=message.user_id).begin(fence=1)
    services.database.rows("SELECT forget_user(%s, '{}', '[]')", ([message.user_id],))
    [settled] = services.database.ask("settle_turns", [settlement(begun.answer)])
    assert settled["outcome"] == "already"
    assert services.database.rows("SELECT FROM messages") == []


def test_an_export_has_every_row_of_a_person_and_of_nobody_else(
    services: Services, alice: UUID, accept: Callable[..., Accepted]
) -> None:
    accept("bob", "of bob")
    lines = [{"table": table, "row": row} for table, row in export(services, alice, "ann")]
    text = json.dumps(lines)
    assert found(text) == set(CANARIES)
    assert "of bob" not in text
    tables = {line["table"] for line in lines}
    assert {"users", "user_aliases", "messages", "inbox", "tool_calls", "quarantined_payloads", "audit"} <= tables


def test_the_commands_export_and_forget(services: Services, alice: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", services.settings.database_url)
    monkeypatch.setenv("REDIS_URL", services.settings.redis_url)
    exported = CliRunner().invoke(onelane, ["--as", "ann", "user", "export", str(alice)])
    assert {json.loads(line)["table"] for line in exported.output.splitlines()} >= {"users", "messages"}
    declined = CliRunner().invoke(onelane, ["user", "forget", str(alice)], input="n\n")
    assert declined.exit_code == 1
    done = CliRunner().invoke(onelane, ["--as", "ann", "user", "forget", f"demo:{PHONE}", "--yes"])
    assert f"user {alice} is forgotten: 3 messages, 3 webhooks in quarantine" in done.output
    assert services.database.rows("SELECT who, act FROM audit ORDER BY nr")[1:] == [
        ("ann", "user_exported"),
        ("ann", "user_forgotten"),
    ]


@pytest.mark.slow
def test_forgetting_under_load_takes_nothing_of_others_and_meets_no_deadlock(
    services: Services, settings: Settings, run_worker: RunWorker
) -> None:
    others, leaving = ([f"{kind} {nr}" for nr in range(10)] for kind in ("stays", "leaves"))
    deadlocks = "SELECT deadlocks AS n FROM pg_stat_database WHERE datname = current_database()"
    [before] = services.database.rows(deadlocks)

    def write(people: list[str]) -> None:
        for nr in range(ROUNDS):
            for one in people:
                with suppress(OnelaneError):  # somebody is being forgotten: the provider would deliver it again
                    accept_all(services, [(one, f"{one} {nr}")])

    def leave(person: str) -> int:
        forgotten = 0
        while forgotten < 3:
            user_id = eventually(lambda: user_of(services.database, "demo", person))
            forgotten += forget(services, user_id, "ann") is not None
        return forgotten

    with run_worker(settings), ThreadPoolExecutor(6) as pool:
        writing = [pool.submit(write, people) for people in (others, leaving, leaving)]
        leavers = [pool.submit(leave, person) for person in leaving[:3]]
        assert [one.result(DEADLINE_S) for one in leavers] == [3, 3, 3]
        for one in writing:
            one.result(DEADLINE_S)
        ids = [user_of(services.database, "demo", one) for one in others]
        eventually(lambda: not services.database.rows("SELECT FROM inbox WHERE user_id = ANY(%s)", (ids,)))
    found = services.database.rows(
        "SELECT count(*) FILTER (WHERE direction = 'in') AS said, count(*) FILTER (WHERE direction = 'out') AS replied"
        " FROM messages WHERE user_id = ANY(%s) GROUP BY user_id",
        (ids,),
    )
    assert found == [(ROUNDS, ROUNDS)] * len(others)
    assert services.database.rows(deadlocks) == [before]


@pytest.mark.parametrize("kind", keys.KINDS)
def test_what_was_read_before_and_is_put_on_a_lane_late_is_taken_off_it(
    services: Services, settings: Settings, alice: UUID, run_worker: RunWorker, log_lines: LogLines, kind: str
) -> None:
    [late] = services.database.rows("SELECT id FROM messages WHERE user_id = %s AND is_dead", (alice,))
    assert forget(services, alice, "ann") is not None
    [lanes] = [lanes for lanes in services.all_lanes if lanes.kind == kind]
    lanes.enqueue(alice, late.id)
    with run_worker(settings):
        eventually(lambda: lanes.scores([alice]) == [None])
    client = services.lanes.client
    assert client.exists(keys.queue(alice, kind), keys.job(late.id)) == client.scard("rq:queues") == 0
    assert not [line for line in log_lines if line["event"] == "foreign_jobs"]


@pytest.mark.parametrize(
    ("body", "is_hers"),
    [(b'{"from": "bob"}', True), (b'{"id":4711}', True), (b"a=bob&b", True), (b"bobby, 47112", False)],
)
def test_a_short_name_is_found_where_it_is_a_whole_value(body: bytes, is_hers: bool) -> None:
    assert any(one.encode() in body for one in spellings_of("bob") | spellings_of("4711")) == is_hers


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("after", ["", "z", "zy"])
def test_a_name_is_found_in_base64_wherever_it_begins(before: str, after: str) -> None:
    coded = base64.b64encode(f"{before}{PHONE}{after}".encode()).decode()
    assert any(spelling in coded for spelling in spellings_of(PHONE))
    assert not any(spelling in base64.b64encode(b"+15550100000").decode() for spelling in spellings_of(PHONE))
