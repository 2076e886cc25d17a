-- Moves a waiting message into history, as processed or dead, with everything its turn wrote.
--
-- The caller holds the user's row lock, has read the message under it, and has compared fence and version.
-- p_effects: {replies: see store_replies, tool_calls: [{call_id, name, arguments, output}], session_state, user_state,
--             summary, end: reason, escalate: true}, each optional.
-- A redriven message is older than its session's last message: it moves nothing back, reopens nothing and ends nothing,
-- else why and when its session ended would depend on whether others were worked off before it.
-- A session that a human took over while the turn ran is the human's: replies and an end are withheld.
-- Returns whether more waits, and for how many ms the session id may be cached: 0, not at all, unless it is active.
CREATE OR REPLACE FUNCTION settle_message(
    p_user users, p_message inbox, p_turn jsonb, p_state text, p_effects jsonb,
    OUT has_more boolean, OUT session_ms bigint)
LANGUAGE plpgsql AS $$
DECLARE
    v_session conversation_sessions;
    v_ordinal integer := 0;
    v_next_seq bigint := p_message.seq + 1;
    v_overtaken boolean;
BEGIN
    UPDATE conversation_sessions
       SET last_message_at = CASE WHEN status = 'ended' THEN last_message_at
                                  ELSE greatest(last_message_at, p_message.accepted_at) END,
           state = coalesce(p_effects -> 'session_state', state),
           summary = CASE WHEN p_effects ? 'summary' THEN p_effects ->> 'summary' ELSE summary END
     WHERE id = (p_turn ->> 'session_id')::uuid AND user_id = p_user.id
    RETURNING * INTO STRICT v_session;
    v_overtaken := v_session.status = 'escalated';

    DELETE FROM inbox WHERE user_id = p_user.id AND seq = p_message.seq;
    IF is_plain(p_message) THEN -- what most are: each column that a statement names costs
        INSERT INTO messages (id, user_id, session_id, direction, seq, turn_seq, ordinal, state, channel, external_id,
                              text, button, attachments, route, traceparent, sent_at, accepted_at, lease)
        VALUES (p_message.id, p_user.id, v_session.id, 'in', p_message.seq, p_message.seq, 0, p_state,
                p_message.channel, p_message.external_id, p_message.text, p_message.button, p_message.attachments,
                p_message.route, p_message.traceparent, p_message.sent_at, p_message.accepted_at,
                p_turn ->> 'token');
    ELSE
        INSERT INTO messages (id, user_id, session_id, direction, kind, seq, turn_seq, ordinal, state, channel, external_id,
                              event, text, button, closes, attachments, parts, raw, has_payload, quoted, author, mentioned,
                              repairs, edited_text, deleted_at, route, traceparent, sent_at, accepted_at, attempts, deaths,
                              last_error, redriven_at, end_at, batch_last, lease)
        VALUES (p_message.id, p_user.id, v_session.id, 'in', p_message.kind, p_message.seq, p_message.seq, 0, p_state,
                p_message.channel, p_message.external_id, p_message.event, p_message.text, p_message.button,
                p_message.closes, p_message.attachments, p_message.parts, p_message.raw, p_message.has_payload,
                p_message.quoted, p_message.author, p_message.mentioned, p_message.repairs, p_message.edited_text,
                p_message.deleted_at, p_message.route, p_message.traceparent, p_message.sent_at, p_message.accepted_at,
                p_message.attempts, p_message.deaths, p_message.last_error, p_message.redriven_at, p_message.end_at,
                nullif(p_message.batch_last, p_message.seq), p_turn ->> 'token');
    END IF;
    IF p_effects -> 'replies' <> '[]' THEN
        IF p_message.redriven_at IS NOT NULL THEN
            SELECT max(ordinal) INTO v_ordinal FROM messages WHERE user_id = p_user.id AND turn_seq = p_message.seq;
        END IF;
        PERFORM store_replies(
            p_user.id, p_user.channel, v_session.id, p_message.seq, v_ordinal, p_message.route, p_message.accepted_at,
            p_effects -> 'replies', CASE WHEN v_overtaken THEN 'escalated' END, p_traceparent => p_turn ->> 'traceparent');
    END IF;
    IF p_effects ? 'tool_calls' THEN
        INSERT INTO tool_calls (user_id, session_id, message_id, call_id, name, arguments, output)
        SELECT p_user.id, v_session.id, p_message.id, coalesce(call ->> 'call_id', new_id()::text), call ->> 'name',
               coalesce(call -> 'arguments', '{}'), call -> 'output'
          FROM jsonb_array_elements(p_effects -> 'tool_calls') WITH ORDINALITY AS c (call, nr) ORDER BY nr;
    END IF;

    IF p_message.has_steps THEN
        DELETE FROM steps WHERE message_id = p_message.id;
    END IF;
    IF p_effects ? 'escalate' THEN
        -- A redriven message is old, and its hour would be over at once: it counts from when it was redriven.
        UPDATE conversation_sessions
           SET status = 'escalated', escalated_at = greatest(last_message_at, p_message.redriven_at)
         WHERE id = v_session.id AND status = 'active';
        v_session.status := 'escalated';
    END IF;
    IF p_effects ? 'end' AND NOT v_overtaken AND p_message.redriven_at IS NULL THEN
        PERFORM end_session(v_session.id, p_message.accepted_at, p_effects ->> 'end');
        v_session.status := 'ended';
    END IF;
    IF p_message.end_at IS NOT NULL THEN
        PERFORM end_open_session(p_user, p_message.end_at, p_message.end_reason);
        v_session.status := 'ended';
    END IF;

    IF p_user.next_seq <> p_message.seq THEN -- a redriven message may wait below this one, or this one is redriven
        SELECT coalesce(min(seq), greatest(p_user.next_seq, v_next_seq)) INTO v_next_seq FROM inbox
         WHERE user_id = p_user.id AND seq >= p_user.next_seq AND seq < p_message.seq;
    END IF;
    IF p_effects ? 'user_state' OR p_message.puts_state_aside THEN -- apart: few turns do, and each column costs
        UPDATE users
           SET state = CASE WHEN p_message.puts_state_aside THEN '{}' ELSE p_effects -> 'user_state' END,
               state_aside = CASE WHEN p_message.puts_state_aside
                                  THEN coalesce(state_aside, '{}') || coalesce(p_effects -> 'user_state', state)
                                  ELSE state_aside END
         WHERE id = p_user.id;
    END IF;
    UPDATE users
       SET fence = (p_turn ->> 'fence')::bigint, version = version + 1, waiting = waiting - 1, next_seq = v_next_seq
     WHERE id = p_user.id
    RETURNING waiting > 0 INTO has_more;
    session_ms := 0;
    IF v_session.status = 'active' THEN
        session_ms := greatest(0, 1000 * extract(epoch FROM
            (session_end_by_policy(p_user.channel, v_session.started_at, v_session.last_message_at)).ends_at
            - clock_timestamp()))::bigint;
    END IF;
END $$;
