-- Hands out a user's lowest waiting message and the session it belongs to, to the holder of a lease.
--
-- outcome: turn; idle (nothing waits); paused; fenced (a later lease has written: `fence` says which).
-- With a good hint, the cached session id, it only reads. A hint that is not this user's open session for this
-- message is stale: then it locks the user's row, reads again, and get_or_create_session decides. (Without reading
-- again, two workers on one message made two sessions: the first commits, the second, waiting for the lock, opened
-- another one for the message that it had seen waiting.)
-- A redriven message runs before one that may be running: if Redis forgot that one's lease, both would read the same
-- state and one change would be lost. So it takes the fence at once, and a turn under an older one commits nothing.
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
    v_is_locked boolean := p_taken_over;
BEGIN
    LOOP
        IF v_is_locked THEN
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

        IF v_message.session_id IS NOT NULL THEN
            -- Redriven: it keeps the session in which it died, whatever became of that.
            IF NOT v_is_locked THEN
                v_is_locked := true;
                CONTINUE;
            END IF;
            SELECT * INTO v_session FROM conversation_sessions WHERE id = v_message.session_id;
            hint := 'unused';
        ELSIF p_session_hint IS NULL THEN
            hint := 'miss';
        ELSE
            SELECT * INTO v_session FROM conversation_sessions s
             WHERE s.id = p_session_hint AND s.user_id = p_user_id AND s.status = 'active'
               AND should_create_new_session(
                       v_user.channel, s.started_at, s.last_message_at, v_message.accepted_at) IS NULL;
            hint := CASE WHEN FOUND THEN 'hit' ELSE 'stale' END;
        END IF;
        EXIT WHEN v_is_locked OR v_session.id IS NOT NULL;
        v_is_locked := true;
    END LOOP;

    IF p_taken_over OR v_message.session_id IS NOT NULL THEN
        UPDATE users SET fence = p_fence WHERE id = p_user_id;
    END IF;
    IF p_taken_over AND v_user.fence < p_fence THEN -- not again when the answer was lost
        UPDATE messages SET deaths = deaths + 1 WHERE id = v_message.id RETURNING * INTO v_message;
    END IF;
    IF v_session.id IS NULL THEN
        session_id := get_or_create_session(p_user_id, v_message.accepted_at);
        SELECT * INTO v_session FROM conversation_sessions s WHERE s.id = begin_turn.session_id;
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
