-- Lets a dead message wait again, with its number and its session; being the lowest it runs next.
-- An end that was noted on it took effect when it died. Its session, should its time be over, is ended first: whatever
-- the message does when it runs again, it comes too late for that.
-- p_died_at names the death that the caller saw, so that a repeated call does nothing more; NULL: whichever.
-- Locks the user's row. Returns the user, or NULL when the message is not dead.
CREATE OR REPLACE FUNCTION redrive_message(
    p_message_id uuid, p_died_at timestamptz DEFAULT NULL, p_now timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_dead messages;
    v_user users;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
BEGIN
    SELECT * INTO v_dead FROM messages WHERE id = p_message_id;
    v_user := lock_user(v_dead.user_id);
    DELETE FROM messages
     WHERE id = p_message_id AND state = 'dead' AND processed_at = coalesce(p_died_at, processed_at)
    RETURNING * INTO v_dead;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF v_user.waiting = 0 THEN
        PERFORM end_session_if_over(v_user, v_now);
    END IF;
    INSERT INTO inbox (user_id, seq, id, session_id, kind, channel, external_id, text, button, attachments, route,
                       traceparent, sent_at, accepted_at, redriven_at)
    VALUES (v_dead.user_id, v_dead.seq, v_dead.id, v_dead.session_id, v_dead.kind, v_dead.channel, v_dead.external_id,
            v_dead.text, v_dead.button, v_dead.attachments, v_dead.route, v_dead.traceparent, v_dead.sent_at,
            v_dead.accepted_at, v_now);
    UPDATE users SET waiting = waiting + 1, next_seq = least(next_seq, v_dead.seq) WHERE id = v_user.id;
    RETURN v_user.id;
END $$;
