"""The planted bugs. Each takes away what a promise stands on, and must be found in a run of its own.

A layer that another backs up is taken away together with it. Where a bug needs two things at the same moment, it takes
its time there, so that a short run meets it. `faults` are those that bring it out; `seen_by` are the checks
of which one must find it, and finds nothing without it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from tests.chaos.mutants import patches
from tests.chaos.mutants.planting import Patch, Plant, Script, Sql, Statement
from tests.chaos.traffic.speech import TOOL

EVENING_HOUR = 21


@dataclass(frozen=True)
class Mutant:
    """One planted bug, and the run that must find it."""

    takes_away: str
    seen_by: tuple[str, ...]
    plants: tuple[Plant, ...]
    faults: tuple[str, ...] = ()
    minutes: float = 0.5
    rate: float | None = None
    """Messages a second, where the usual traffic would hide the bug."""


NO_RECONCILER = Patch(patches.reconciler_off)
HOURS_TO_EVENING = EVENING_HOUR - datetime.now(UTC).hour
HOUR_OF_DAY_RULE = f"""
CREATE OR REPLACE FUNCTION should_create_new_session(
    p_channel text, p_started_at timestamptz, p_last_message_at timestamptz, p_accepted_at timestamptz)
RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN extract(hour FROM p_last_message_at + interval '{HOURS_TO_EVENING} hours') >= 20
                 AND extract(hour FROM p_accepted_at + interval '{HOURS_TO_EVENING} hours') >= 6
                THEN 'end_of_day' END
$$
"""

WAITING_OR_DONE = """
SELECT * FROM inbox UNION ALL
SELECT (jsonb_populate_record(NULL::inbox, to_jsonb(m))).* FROM messages m WHERE direction = 'in'
"""

USER_OF_FIRST_NAME = """
    user_id := md5(p_channel || ':' || (p_item -> 'senders' ->> 0))::uuid;
    INSERT INTO users (id, channel, sender) VALUES (user_id, p_channel, p_item -> 'senders' ->> 0)
    ON CONFLICT DO NOTHING;
    INSERT INTO user_aliases (channel, alias, user_id)
    SELECT p_channel, n, find_or_create_user.user_id FROM unnest(v_names) n ON CONFLICT DO NOTHING;
    missing := NULL;
    RETURN;
    IF cardinality(v_names) = 1 THEN
"""

SKIPPED_FOR_ALL = """
        v_answers := v_answers || v_answer;
        IF v_answer ->> 'outcome' = 'skipped' AND jsonb_array_length(p_items) > 1 THEN
            RAISE lock_not_available;
        END IF;
"""

OUTPUT_OR_NOT = f"CASE WHEN random() > 0.2 OR call ->> 'name' <> '{TOOL}' THEN call -> 'output' END"
NO_MARK = Sql({"SET state = 'sending'": "SET state = 'pending'"}, ("begin_send",))
NEW_KEY_EACH_TIME = Patch(patches.new_key_each_time)
ONE_LOCK = Patch(patches.one_lock)
STATUSES_DOWN = Sql(
    {"array_position(v_ranks, v_state) > coalesce(array_position(v_ranks, v_old.state), 0)": "true"}, ("move_reply",)
)

MUTANTS: dict[str, Mutant] = {
    "no-mark-of-a-send": Mutant(
        "the mark of a reply before its request, by which a later lease sees that nobody knows what came of it",
        ("provider",),
        (NO_MARK, Patch(patches.sends_settled_late)),
        ("kill-worker",),
        rate=15,
    ),
    "resend-without-key": Mutant(
        "the key of a reply that is sent again", ("provider",), (NEW_KEY_EACH_TIME,), ("api-drops",), rate=15
    ),
    "absent-once": Mutant(
        "the second request for a reply that has certainly not arrived: it fails at once",
        ("provider",),
        (
            Sql(
                {"p_outcome = 'absent' AND p_reply.resent AND v_is_over": "p_outcome = 'absent' AND v_is_over"},
                ("settle_request",),
            ),
        ),
        ("api-drops",),
        rate=25,
    ),
    "given-up-although-answered": Mutant(
        "some answers of providers that cannot be asked again: the reply is given up instead",
        ("provider",),
        (Patch(patches.answers_overheard),),
        rate=25,  # few people write on that channel
    ),
    "statuses-down": Mutant(
        "the order of what a provider says of a reply", ("provider",), (STATUSES_DOWN,), ("api-statuses",), rate=15
    ),
    "one-lock": Mutant(
        "the lock that a user's replies have beside that of their turns",
        ("calm",),
        (ONE_LOCK,),
        ("api-hangs",),
        rate=15,
    ),
    "membership-not-frozen": Mutant(
        "the end of a batch, as its first begin has written it",
        ("batches",),
        (
            Sql({"UPDATE inbox SET batch_last = v_last": "UPDATE inbox SET batch_last = NULL"}, ("begin_turn",)),
            Patch(partial(patches.settle_late, "gathered")),
        ),
        ("kill-worker",),
    ),
    "superseded-by-signal-alone": Mutant(
        "the decision in Postgres that a newer message throws a turn away: what Redis knows decides",
        ("batches",),
        (Patch(patches.superseded_by_signal), Patch(partial(patches.settle_late, "interrupted"))),
        ("flush-redis", "lose-redis"),
    ),
    "fence-off": Mutant(
        "the fence, in begin and settle, and the version that backs it up",
        ("fences",),
        (
            Sql({"is_fenced(v_user.fence, v_fence)": "false"}, ("begin_turn",)),
            Sql(
                {
                    "is_fenced(v_user.fence, (p_turn ->> 'fence')::bigint)": "false",
                    "v_user.version <> (p_turn ->> 'version')::bigint": "false",
                },
                ("settle_turn",),
            ),
            Patch(patches.settle_late),
        ),
        ("freeze-worker", "freeze-provider"),  # the latter harms nobody: seldom are all workers frozen at once
        minutes=2,
        rate=3,  # a successor needs a free slot, to begin while the frozen one sleeps
    ),
    "compare-and-set-off": Mutant(
        "the look whether a message still waits, and the constraints on what is stored of it",
        ("effects",),
        (
            Sql(
                {
                    "FROM inbox WHERE user_id": f"FROM ({WAITING_OR_DONE}) i WHERE user_id",
                    "v_user.version <> (p_turn ->> 'version')::bigint": "false",
                },
                ("settle_turn",),
            ),
            Statement("ALTER TABLE messages DROP CONSTRAINT messages_pkey"),
            Statement("ALTER TABLE messages DROP CONSTRAINT a_message_of_a_turn_is_one"),
            Statement("ALTER DOMAIN amount DROP CONSTRAINT amount_check"),
        ),
        ("drop-reply", "terminate-backends", "cut"),
    ),
    "pop-before-processing": Mutant(
        "the lane's place in the due order while it is leased, and the reconciler",
        ("acceptance",),
        (
            Script(
                "lease",
                "redis.call('ZADD', LANES, unpack(scores))",
                "for _, lane in ipairs(lanes) do redis.call('ZREM', LANES, lane.user) end",
            ),
            NO_RECONCILER,
        ),
        ("kill-worker",),
    ),
    "answer-before-commit": Mutant(
        "the commit before the answer",
        ("acceptance",),
        (Patch(patches.answer_before_commit),),
        ("kill-web", "kill-web-child"),
        rate=12.0,  # each message holds its user's row for a while
    ),
    "one-session-index-and-row-lock-off": Mutant(
        "the unique index, and the user's row lock where sessions are made",
        ("sessions",),
        (
            Statement("DROP INDEX idx_unique_active_session_per_user"),
            Sql(
                {"v_user := lock_user(v_user_id, p_waits)": "SELECT * INTO v_user FROM users WHERE id = v_user_id"},
                ("begin_turn",),
            ),
            Sql(
                {
                    "v_user := lock_user(p_user_id)": "SELECT * INTO v_user FROM users WHERE id = p_user_id",
                    "    INSERT INTO conversation": "    PERFORM pg_sleep(1.2);\n    INSERT INTO conversation",
                },
                ("get_or_create_session",),
            ),
        ),
        ("flush-redis", "lose-redis"),
    ),
    "hour-of-day-rule": Mutant(
        "the policy, for a comparison of hours of the day", ("sessions",), (Statement(HOUR_OF_DAY_RULE),), minutes=0.15
    ),
    "client-retries-on": Mutant(
        "the client that repeats nothing, finish by id and by its holder, and the reconciler",
        ("leftovers", "acceptance"),
        (
            Patch(patches.retries_on),
            Script("finish", "if lock[1] ~= lane.token then return 'lost' end", ""),
            Script("finish", "ours('LREM', queue_key(user), 1, id)", "redis.call('LPOP', queue_key(user))"),
            Script("finish", " or lane.has_more", ""),
            NO_RECONCILER,
        ),
        ("drop-reply", "cut"),
    ),
    "finish-without-ownership": Mutant(
        "the check that only a lane's holder gives it on",
        ("fences",),
        (Script("finish", "if lock[1] ~= lane.token then return 'lost' end", "if not lock[1] then return 'lost' end"),),
        ("flush-redis", "lose-redis"),
    ),
    "reconciler-off": Mutant(
        "the reconciler", ("acceptance",), (NO_RECONCILER,), ("evicting-redis", "flush-redis", "lose-redis")
    ),
    "dedup-in-redis-only": Mutant(
        "the look-up and the index that find duplicates in Postgres",
        ("acceptance",),
        (
            Sql({"ON CONFLICT DO NOTHING": ""}, ("accept_one",)),
            Statement("ALTER TABLE accepted_deliveries DROP CONSTRAINT accepted_deliveries_pkey"),
            Patch(patches.dedup_in_redis),
        ),
        ("flush-redis", "lose-redis"),
    ),
    "cache-trusted": Mutant(
        "all that begin_turn asks of a cached session id",
        ("sessions",),
        (
            Sql(
                {
                    " AND s.user_id = u.id": "",
                    "v_session.status = 'active' AND v_message.escalate_at IS NULL AND should_create_new_session(\n"
                    "                v_user.channel, v_session.started_at, v_session.last_message_at,"
                    " v_message.accepted_at) IS NULL": "v_session.id IS NOT NULL",
                },
                ("begin_turn",),
            ),
            Patch(patches.finish_late),
        ),
    ),
    "uuid5-user": Mutant(
        "the look who a person is: their user is computed from the first of their names",
        ("identity",),
        (Sql({"    IF cardinality(v_names) = 1 THEN": USER_OF_FIRST_NAME}, ("find_or_create_user",)),),
    ),
    "newest-first": Mutant(
        "the order in which a user's messages are handed out",
        ("order",),
        (Sql({"AND i.seq >= u.next_seq ORDER BY i.seq LIMIT 1": "ORDER BY i.seq DESC LIMIT 1"}, ("begin_turn",)),),
        rate=20,
    ),
    "escalation-ignored": Mutant(
        "the look whether a human has the session, before the bot is asked",
        ("escalation",),
        (Sql({"'status', v_session.status": "'status', 'active'"}, ("begin_turn",)),),
    ),
    "pause-ignored": Mutant(
        "the look whether a user is paused, and Redis' own",
        ("pauses",),
        (
            Sql({"v_user.paused_at IS NOT NULL": "false"}, ("begin_turn",)),
            Script("pause", "redis.call('ZADD', LANES, 'XX', '+inf', user)", ""),
        ),
    ),
    "deliveries-of-the-forgotten-forgotten": Mutant(
        "what is kept of a forgotten person's deliveries, by which a redelivery is known",
        ("forgetting",),
        (Sql({"FROM known\n": "FROM known WHERE false\n"}, ("hide_deliveries",)),),
    ),
    "retention-off": Mutant(
        "the duty that forgets sessions that are kept no longer", ("forgetting",), (Patch(patches.retention_off),)
    ),
    "echo-only-noted": Mutant(
        "that a colleague who writes from the provider's app has taken over",
        ("escalation",),
        (Sql({"p_item ->> 'on_echo' IS DISTINCT FROM 'note'": "false"}, ("take_event",)),),
    ),
    "output-lost": Mutant(
        "the constraint that a tool call has its output, and some outputs",
        ("effects",),
        (
            Statement("ALTER TABLE tool_calls ALTER output DROP NOT NULL"),
            Sql({"call -> 'output'": OUTPUT_OR_NOT}, ("settle_message",)),
        ),
    ),
    "forked-children-go-on": Mutant(
        "the end of a handler's forked child where it leaves the handler, and the loss of its descriptors",
        ("leftovers", "fences"),
        (Patch(patches.children_go_on),),
    ),
    "wake-before-push": Mutant(
        "the order of push and wake-up, and an idle worker's own look",
        ("calm",),
        (
            Patch(patches.wake_before_push),
            Script("enqueue", "  wake_workers()\n  return answers", "  return answers"),
        ),
        rate=1,
    ),
    "helper-unwatched": Mutant(
        "the look whether the renewing helper answers",
        ("stuck",),
        (Patch(patches.helper_unwatched),),
        ("freeze-helper",),
    ),
    "loop-late": Mutant(
        "the clock that stands still while the event loop is blocked",
        ("blame",),
        (Patch(patches.loop_late),),
        ("block-loop",),
        minutes=0.7,  # the longest storm without a calm at its end
        rate=60,  # a turn that waits beside the one that blocks is a matter of chance
    ),
    "outage-charged": Mutant(
        "the difference between a handler's failure and an outage that it sees",
        ("blame",),
        (Patch(patches.outage_charged),),
        ("lock-table",),
    ),
    "refusals-answered": Mutant(
        "the 2xx for a message that Postgres has and Redis refuses",
        ("intake",),
        (Patch(patches.refusals_answered),),
        ("read-only-redis", "refusing-redis"),
    ),
    "failures-counted-twice": Mutant(
        "the number of the attempt in a failure, and the answer to every first time that it is asked for",
        ("blame",),
        (
            Sql({"p_message.attempts = (v_failure ->> 'attempts')::integer": "true"}, ("fail_message",)),
            Patch(patches.failures_asked_twice),
        ),
    ),
    "fault-fails-its-list": Mutant(
        "the island that each message of a list is: whose row is held fails all that came at the same time",
        ("intake",),
        (
            Sql(
                {
                    "        v_answers := v_answers || v_answer;": SKIPPED_FOR_ALL,
                    "    RETURN to_json(v_answers);": "    PERFORM pg_sleep(0.1);\n    RETURN to_json(v_answers);",
                },
                ("accept",),
            ),
        ),
        ("lock-row",),
        rate=30,
    ),
}
