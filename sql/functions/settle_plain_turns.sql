-- Settles those turns of a list that are plain, all of them at once: what most are. Returns their answers, as settle_turn
-- gives them, each in its item's place; NULL for what is not plain, and nothing has been done of that.
--
-- Plain is a turn of one message that was accepted as text or files, of which nothing has failed or was noted, and which is
-- its user's lowest; its session is open and with the bot; its effects are replies and states; nothing interrupts it; nobody
-- else holds the user's row; and it may be stored: nothing says `already`, `fenced` or `stale`. A user whose turns are
-- several in a list has none that is plain.
-- A statement costs by its beginning and its end, much more than by its rows: one for all of a list costs a third of one
-- for each. It does what settle_message does, with what is always so of a plain turn left out; and settle_message is what
-- decides: whatever is refused here is asked of it again, each turn for itself.
-- The users are locked first; what is decided by is read in a later statement. Rows
-- are found by their keys, one by one, and then by their places: no plan can come to read all of a table.
CREATE OR REPLACE FUNCTION settle_plain_turns(p_turns jsonb) RETURNS json[]
LANGUAGE plpgsql AS $$
DECLARE
    v_users uuid[];
    v_done record;
    v_answers json[] := array_fill(NULL::json, ARRAY[jsonb_array_length(p_turns)]);
BEGIN
    SELECT array_agg(id) INTO v_users FROM (
        SELECT id FROM users WHERE id = ANY (ARRAY(
            SELECT (turn ->> 'user_id')::uuid FROM jsonb_array_elements(p_turns) turn
             GROUP BY 1
            HAVING count(*) = 1 AND bool_and(
                jsonb_array_length(turn -> 'seqs') = 1 AND NOT turn ?| '{interrupt,failure}'
                AND NOT turn -> 'effects' ?| '{tool_calls,summary,end,escalate}'
                AND NOT turn @? '$.effects.replies[*].failure ? (@ <> "no_route")')))
           FOR NO KEY UPDATE SKIP LOCKED) AS locked;
    FOR v_done IN
        WITH turn AS MATERIALIZED (
            SELECT t.nr, t.item, t.item -> 'effects' AS effects, found.*
              FROM jsonb_array_elements(p_turns) WITH ORDINALITY AS t (item, nr), LATERAL (
                   SELECT u.ctid AS user_at, i.ctid AS message_at, s.ctid AS session_at, i AS m, s.id AS session_id,
                          s.started_at, greatest(s.last_message_at, i.accepted_at) AS last_message_at
                     FROM users u, inbox i, conversation_sessions s
                    WHERE u.id = (t.item ->> 'user_id')::uuid AND u.id = ANY (v_users)
                      AND i.user_id = (t.item ->> 'user_id')::uuid AND i.seq = (t.item -> 'seqs' ->> 0)::bigint
                      AND s.id = (t.item ->> 'session_id')::uuid AND s.user_id = u.id AND s.status = 'active'
                      AND NOT is_fenced(u.fence, (t.item ->> 'fence')::bigint)
                      AND u.version = (t.item ->> 'version')::bigint AND u.next_seq = i.seq AND is_plain(i)
                    LIMIT 1) AS found
        ), session AS (
            UPDATE conversation_sessions s
               SET last_message_at = turn.last_message_at, state = coalesce(turn.effects -> 'session_state', s.state)
              FROM turn WHERE s.ctid = turn.session_at
        ), gone AS (
            DELETE FROM inbox i USING turn WHERE i.ctid = turn.message_at
        ), line AS (
            INSERT INTO messages (id, user_id, session_id, direction, seq, turn_seq, ordinal, state, channel, external_id,
                                  text, button, attachments, parts, quoted, raw, route, traceparent, sent_at, accepted_at,
                                  lease, failure, failure_code)
            SELECT (m).id, (m).user_id, session_id, 'in', (m).seq, (m).seq, 0, 'processed', (m).channel,
                   (m).external_id, (m).text, (m).button, (m).attachments, NULL, NULL, NULL, (m).route, (m).traceparent,
                   (m).sent_at, (m).accepted_at, item ->> 'token', NULL, NULL
              FROM turn
             UNION ALL
            SELECT new_id(), (m).user_id, session_id, 'out', NULL, (m).seq, r.nr,
                   CASE WHEN reply ->> 'failure' IS NULL THEN 'pending' ELSE 'withheld' END, (m).channel,
                   NULL, reply ->> 'text', NULL, coalesce(reply -> 'attachments', '[]'), nullif(reply -> 'parts', 'null'),
                   reply ->> 'quoted', nullif(reply -> 'raw', 'null'), (m).route, item ->> 'traceparent',
                   NULL, (m).accepted_at, NULL, reply ->> 'failure', reply ->> 'failure_code'
              FROM turn, jsonb_array_elements(effects -> 'replies') WITH ORDINALITY AS r (reply, nr)
            RETURNING id, user_id, turn_seq, ordinal, channel, state
        ), sending AS (
            INSERT INTO outbox (user_id, turn_seq, ordinal, id, channel)
            SELECT user_id, turn_seq, ordinal, id, channel FROM line WHERE state = 'pending'
        ), person AS (
            UPDATE users u
               SET fence = (turn.item ->> 'fence')::bigint, version = u.version + 1, waiting = u.waiting - 1,
                   next_seq = u.next_seq + 1, state = coalesce(turn.effects -> 'user_state', u.state)
              FROM turn WHERE u.ctid = turn.user_at
            RETURNING turn.nr, turn.item, u.id AS user_id, (turn.m).seq, u.waiting > 0 AS has_more, u.channel,
                      turn.started_at, turn.last_message_at
        )
        SELECT nr, item, user_id, seq, has_more, greatest(0, 1000 * extract(epoch FROM
                   (session_end_by_policy(channel, started_at, last_message_at)).ends_at - clock_timestamp()))::bigint
               AS session_ms
          FROM person
    LOOP
        v_answers[v_done.nr] := json_build_object(
            'user_id', v_done.user_id, 'outcome', 'committed', 'has_more', v_done.has_more,
            'session_ms', v_done.session_ms, 'attempts', 0, 'later', NULL,
            'outbox', waiting_replies(v_done.user_id, v_done.seq),
            'next', CASE WHEN v_done.has_more AND (v_done.item ->> 'goes_on')::boolean THEN begin_turn(jsonb_build_object(
                'user_id', v_done.user_id, 'fence', v_done.item -> 'fence',
                'hint', CASE WHEN v_done.session_ms > 0 THEN v_done.item -> 'session_id' END)) END);
    END LOOP;
    RETURN v_answers;
END $$;
