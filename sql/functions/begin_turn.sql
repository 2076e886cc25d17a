-- Hands out a user's lowest waiting message and the session it belongs to, to the holder of a lease.
--
-- outcome: turn; idle (nothing waits); paused; fenced (a later lease has written: `fence` says which).
-- With a good hint, the cached session id, it only reads. A hint that is not this user's open session for this
-- message is stale: get_or_create_session decides, under the user's row lock.
-- p_taken_over: the lease before ours was never released, so its holder may have died of this message: counted.
CREATE OR REPLACE FUNCTION begin_turn(
    p_user_id uuid, p_fence bigint, p_session_hint uuid DEFAULT NULL, p_taken_over boolean DEFAULT false,
    OUT outcome text, OUT fence bigint, OUT hint text,
    OUT message_id uuid, OUT seq bigint, OUT text text, OUT button text, OUT attachments jsonb,
    OUT accepted_at timestamptz, OUT attempts integer, OUT deaths integer,
    OUT channel text, OUT sender text, OUT user_state jsonb,
    OUT session_id uuid, OUT session_status text, OUT session_started_at timestamptz, OUT session_state jsonb)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_user users;
    v_message messages;
    v_session conversation_sessions;
BEGIN
    IF p_taken_over THEN
        SELECT * INTO v_user FROM users WHERE id = p_user_id FOR UPDATE;
    ELSE
        SELECT * INTO v_user FROM users WHERE id = p_user_id;
    END IF;
    fence := v_user.fence;
    IF v_user.id IS NULL THEN
        outcome := 'idle';
        RETURN;
    ELSIF v_user.fence > p_fence THEN
        outcome := 'fenced';
        RETURN;
    ELSIF v_user.paused_at IS NOT NULL THEN
        outcome := 'paused';
        RETURN;
    END IF;

    SELECT * INTO v_message FROM messages m
     WHERE m.user_id = p_user_id AND m.state = 'received' ORDER BY m.seq LIMIT 1;
    IF NOT FOUND THEN
        outcome := 'idle';
        RETURN;
    END IF;
    IF p_taken_over THEN
        UPDATE users SET fence = p_fence WHERE id = p_user_id;
        UPDATE messages SET deaths = deaths + 1 WHERE id = v_message.id RETURNING * INTO v_message;
    END IF;

    IF v_message.session_id IS NOT NULL THEN
        -- Redriven: it keeps the session in which it died, whatever became of that.
        SELECT * INTO v_session FROM conversation_sessions WHERE id = v_message.session_id;
        hint := 'unused';
    ELSE
        IF p_session_hint IS NOT NULL AND (v_user.end_after_seq IS NULL OR v_message.seq <= v_user.end_after_seq) THEN
            SELECT * INTO v_session FROM conversation_sessions s
             WHERE s.id = p_session_hint AND s.user_id = p_user_id AND s.status = 'active'
               AND should_create_new_session(
                       v_user.channel, s.started_at, s.last_message_at, v_message.accepted_at) IS NULL;
        END IF;
        hint := CASE WHEN v_session.id IS NOT NULL THEN 'hit' WHEN p_session_hint IS NULL THEN 'miss' ELSE 'stale' END;
        IF v_session.id IS NULL THEN
            session_id := get_or_create_session(p_user_id, v_message.accepted_at, v_message.seq);
            SELECT * INTO v_session FROM conversation_sessions s WHERE s.id = begin_turn.session_id;
        END IF;
    END IF;

    outcome := 'turn';
    message_id := v_message.id;
    seq := v_message.seq;
    text := v_message.text;
    button := v_message.button;
    attachments := v_message.attachments;
    accepted_at := v_message.accepted_at;
    attempts := v_message.attempts;
    deaths := v_message.deaths;
    channel := v_user.channel;
    sender := v_user.sender;
    user_state := v_user.state;
    session_id := v_session.id;
    session_status := v_session.status;
    session_started_at := v_session.started_at;
    session_state := v_session.state;
END $$;
