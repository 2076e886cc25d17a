-- Lets a dead message wait again, with its number and its session; being the lowest it runs next.
-- An end that was noted on it took effect when it died. Its session, should its time be over, is ended first: whatever
-- the message does when it runs again, it comes too late for that.
-- Locks the user's row. Returns the user, or NULL when the message is not dead.
CREATE OR REPLACE FUNCTION redrive_message(p_message_id uuid, p_now timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_user users;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
BEGIN
    SELECT * INTO v_user FROM users
     WHERE id = (SELECT user_id FROM messages WHERE id = p_message_id) FOR UPDATE;
    UPDATE messages
       SET state = 'received', attempts = 0, deaths = 0, last_error = NULL, processed_at = NULL,
           end_at = NULL, end_reason = NULL, redriven_at = v_now
     WHERE id = p_message_id AND state = 'dead';
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF v_user.waiting = 0 THEN
        PERFORM end_session_if_over(v_user, v_now);
    END IF;
    UPDATE users SET waiting = waiting + 1 WHERE id = v_user.id;
    RETURN v_user.id;
END $$;
