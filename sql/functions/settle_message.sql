-- Takes a waiting message out of its user's order, as processed or dead, with everything its turn wrote.
--
-- The caller holds the user's row lock, and has compared the fence.
-- p_effects: {replies: [{text, attachments}], tool_outputs: [{name, data}], session_state, user_state, summary,
--             end: reason, escalate: true}, each optional.
-- A redriven message is older than its session's last message: it moves nothing back and reopens nothing.
-- Returns whether more waits (NULL, and nothing is written: this message waits no longer), and for how many ms the session id may be cached: 0, not at all, unless it is active.
CREATE OR REPLACE FUNCTION settle_message(
    p_user users, p_fence bigint, p_message_id uuid, p_session_id uuid, p_state text, p_effects jsonb,
    OUT more boolean, OUT session_ms bigint)
LANGUAGE plpgsql AS $$
DECLARE
    v_message messages;
    v_session conversation_sessions;
    v_ordinal integer := 0;
    v_overtaken boolean;
BEGIN
    UPDATE messages SET state = p_state, session_id = p_session_id, processed_at = clock_timestamp()
     WHERE id = p_message_id AND user_id = p_user.id AND state = 'received'
    RETURNING * INTO v_message;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    UPDATE conversation_sessions
       SET last_message_at = CASE WHEN status = 'ended' THEN last_message_at
                                  ELSE greatest(last_message_at, v_message.accepted_at) END,
           state = coalesce(p_effects -> 'session_state', state),
           summary = coalesce(p_effects ->> 'summary', summary)
     WHERE id = p_session_id AND user_id = p_user.id
    RETURNING * INTO STRICT v_session;
    -- A human took over while the turn ran: its replies are kept, not sent.
    v_overtaken := v_session.status = 'escalated';

    IF p_effects ? 'replies' THEN
        IF v_message.redriven_at IS NOT NULL THEN
            SELECT coalesce(max(ordinal), 0) INTO v_ordinal FROM messages
             WHERE user_id = p_user.id AND turn_seq = v_message.seq;
        END IF;
        INSERT INTO messages (user_id, session_id, direction, turn_seq, ordinal, state, channel, text, attachments,
                              accepted_at)
        SELECT p_user.id, p_session_id, 'out', v_message.seq, v_ordinal + nr,
               CASE WHEN v_overtaken THEN 'withheld' ELSE 'pending' END,
               p_user.channel, reply ->> 'text', coalesce(reply -> 'attachments', '[]'), v_message.accepted_at
          FROM jsonb_array_elements(p_effects -> 'replies') WITH ORDINALITY AS r (reply, nr);
    END IF;
    IF p_effects ? 'tool_outputs' THEN
        INSERT INTO tool_outputs (session_id, message_id, name, data)
        SELECT p_session_id, p_message_id, output ->> 'name', output -> 'data'
          FROM jsonb_array_elements(p_effects -> 'tool_outputs') WITH ORDINALITY AS o (output, nr) ORDER BY nr;
    END IF;

    IF p_effects ? 'escalate' THEN
        -- Now, in the session's time: a redriven message is older, and its hour would be over at once.
        UPDATE conversation_sessions SET status = 'escalated', escalated_at = last_message_at
         WHERE id = p_session_id AND status = 'active';
        v_session.status := 'escalated';
    END IF;
    IF p_effects ? 'end' THEN
        PERFORM end_session(p_session_id, v_message.accepted_at, p_effects ->> 'end');
        v_session.status := 'ended';
    END IF;
    IF v_message.end_at IS NOT NULL THEN
        PERFORM end_open_session(p_user, v_message.end_at, v_message.end_reason);
        v_session.status := 'ended';
    END IF;

    UPDATE users
       SET fence = p_fence, waiting = waiting - 1, state = coalesce(p_effects -> 'user_state', state)
     WHERE id = p_user.id
    RETURNING waiting > 0 INTO more;
    session_ms := 0;
    IF v_session.status = 'active' THEN
        session_ms := greatest(0, 1000 * extract(epoch FROM
            (session_end_by_policy(p_user.channel, v_session.started_at, v_session.last_message_at)).ends_at
            - clock_timestamp()))::bigint;
    END IF;
END $$;
