-- Stores what came of one turn, if it may: its messages still wait, no later lease has written, and nothing that it
-- read has changed since. Asked again word for word it answers the same, and counts nothing twice.
--
-- p_turn: {user_id, fence, token: of the lease, version, seqs: [its messages' numbers], session_id,
--          goes_on: begin the next turn too, traceparent: its span, for its replies' (none where nothing is traced),
--          effects: see settle_message; with them, where newer messages interrupt:
--          interrupt: {superseded: how often in a row before this one, most: how often at most, is_cancelled: the handler
--          was, so that there is nothing to store}; or
--          failure: {error, attempts: failed before this one, attempts_max, poison: skip, park or apologise,
--                    apologies: see store_replies, asks: whether the bot has a word of its own, effects: that word,
--                    later: what the handler needs is away: {laters: before this one, max_s, asked_s, reason}}}.
-- error: where it failed, never the text of the message.
-- Returns {user_id, outcome, has_more, session_ms, attempts, later: see fail_message, outbox, next}.
-- outcome, asked in this order:
--   skipped    another transaction holds the user's row
--   already    the message waits no longer: somebody settled it before, or its user is forgotten
--   fenced     a later lease of this lane has written
--   stale      another turn changed what this one read, or the handler was cancelled for what does not belong into the
--              batch: it runs again, and that is no attempt
--   superseded a newer message has come that belongs into the batch: nothing is stored, and the batch is open again
--   committed  the effects stand
--   later      no attempt: the message goes on waiting, first in its order, for `left_s` at most
--   retry      the failure is counted; the message goes on waiting, first in its order
--   dying      nothing is stored: this failure is the last, and the bot is to be asked for its word first
--   dead       the same, for the last time; the message left the order
--   paused     the same, but the channel's poison policy is `park`: the message stays first, the user waits
-- has_more: whether the user has further waiting messages. session_ms: for how long the session's id may be cached.
-- outbox: the user's replies that are to be sent (waiting_replies): whoever learns of a settlement lets the out lane know.
-- next: the answer of begin_turn, when the lane goes on.
CREATE OR REPLACE FUNCTION settle_turn(p_turn jsonb, p_waits boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_user users;
    v_message inbox;
    v_settled record;
    v_outcome text;
    v_attempts integer;
    v_later json;
    v_has_more boolean;
    v_session_ms bigint := 0;
    v_next json;
BEGIN
    v_user := lock_user((p_turn ->> 'user_id')::uuid, p_waits);
    IF v_user.id IS NULL THEN
        IF EXISTS (SELECT FROM users WHERE id = (p_turn ->> 'user_id')::uuid) THEN
            RETURN json_build_object('user_id', p_turn ->> 'user_id', 'outcome', 'skipped');
        END IF;
        RETURN json_build_object(
            'user_id', p_turn ->> 'user_id', 'outcome', 'already', 'has_more', false, 'session_ms', 0,
            'outbox', json_build_array());
    END IF;
    SELECT * INTO v_message FROM inbox WHERE user_id = v_user.id AND seq = (p_turn -> 'seqs' ->> 0)::bigint;

    v_attempts := v_message.attempts;
    v_has_more := v_user.waiting > 0;
    IF v_message.id IS NULL THEN
        v_outcome := 'already';
    ELSIF is_fenced(v_user.fence, (p_turn ->> 'fence')::bigint) THEN
        v_outcome := 'fenced';
    ELSIF v_user.version <> (p_turn ->> 'version')::bigint THEN
        v_outcome := 'stale';
    ELSIF p_turn ? 'interrupt' AND supersede_batch(v_user, v_message, p_turn) THEN
        UPDATE users SET fence = (p_turn ->> 'fence')::bigint WHERE id = v_user.id;
        v_outcome := 'superseded';
    ELSIF (p_turn -> 'interrupt' ->> 'is_cancelled')::boolean THEN -- counted as well: it is to end some time
        UPDATE inbox SET superseded = greatest(superseded, (p_turn -> 'interrupt' ->> 'superseded')::integer + 1)
         WHERE user_id = v_user.id AND seq = v_message.seq;
        UPDATE users SET fence = (p_turn ->> 'fence')::bigint WHERE id = v_user.id;
        v_outcome := 'stale';
    ELSIF p_turn ? 'failure' THEN
        v_settled := fail_message(v_user, v_message, p_turn);
        v_outcome := v_settled.outcome;
        v_attempts := v_settled.attempts;
        v_later := v_settled.later;
    ELSE
        FOR nr IN 1 .. jsonb_array_length(p_turn -> 'seqs') - 1 LOOP -- all but the last have lines, and no effects
            PERFORM settle_message(v_user, v_message, p_turn, 'processed', '{}');
            SELECT * INTO v_user FROM users WHERE id = v_user.id;
            SELECT * INTO v_message FROM inbox WHERE user_id = v_user.id AND seq = (p_turn -> 'seqs' ->> nr)::bigint;
        END LOOP;
        v_settled := settle_message(v_user, v_message, p_turn, 'processed', p_turn -> 'effects');
        v_outcome := 'committed';
    END IF;
    IF v_outcome IN ('committed', 'dead') THEN
        v_has_more := v_settled.has_more;
        v_session_ms := v_settled.session_ms;
    END IF;

    IF v_has_more AND v_outcome <> 'fenced' AND (p_turn ->> 'goes_on')::boolean THEN
        v_next := begin_turn(jsonb_build_object(
            'user_id', v_user.id, 'fence', p_turn -> 'fence',
            'hint', CASE WHEN v_session_ms > 0 THEN p_turn -> 'session_id' END));
    END IF;
    RETURN json_build_object(
        'user_id', v_user.id, 'outcome', v_outcome, 'has_more', v_has_more, 'session_ms', v_session_ms,
        'attempts', v_attempts, 'later', v_later,
        'outbox', waiting_replies(v_user.id, (p_turn -> 'seqs' ->> 0)::bigint), 'next', v_next);
END $$;
