-- Lets a dead message wait again, with its number and its session; being the lowest it runs next.
-- An end that was noted on it took effect when it died. Whoever has the session when it runs again handles it: so a
-- session whose time is over is ended first, and so is an escalation; by the next waiting message, else by now.
-- p_died_at names the death that the caller saw, so that a repeated call does nothing more; NULL: whichever.
-- Locks the user's row. Returns the user, or NULL when the message is not dead.
CREATE OR REPLACE FUNCTION redrive_message(
    p_message_id uuid, p_died_at timestamptz DEFAULT NULL, p_now timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_dead messages;
    v_user users;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_at timestamptz;
BEGIN
    SELECT * INTO v_dead FROM messages WHERE id = p_message_id;
    v_user := lock_user(v_dead.user_id);
    DELETE FROM messages
     WHERE id = p_message_id AND state = 'dead' AND processed_at = coalesce(p_died_at, processed_at)
    RETURNING * INTO v_dead;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT accepted_at INTO v_at FROM inbox
     WHERE user_id = v_user.id AND seq >= v_user.next_seq AND session_id IS NULL ORDER BY seq LIMIT 1;
    PERFORM end_session_if_over(v_user, coalesce(v_at, v_now));
    PERFORM end_escalation_if_over(v_user, coalesce(v_at, v_now));
    INSERT INTO inbox (user_id, seq, id, session_id, kind, channel, external_id, text, button, attachments, route,
                       traceparent, sent_at, accepted_at, redriven_at)
    VALUES (v_dead.user_id, v_dead.seq, v_dead.id, v_dead.session_id, v_dead.kind, v_dead.channel, v_dead.external_id,
            v_dead.text, v_dead.button, v_dead.attachments, v_dead.route, v_dead.traceparent, v_dead.sent_at,
            v_dead.accepted_at, greatest(v_now, v_user.last_accepted_at));
    UPDATE users SET waiting = waiting + 1, next_seq = least(next_seq, v_dead.seq) WHERE id = v_user.id;
    RETURN v_user.id;
END $$;
