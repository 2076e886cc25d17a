-- Notes that a dead message may be forgotten: it stays dead, in its place and session, and is listed no more. Dying
-- again, after somebody redrove it all the same, it is listed again.
-- Locks the user's row. Returns the user, or NULL when the message is not dead.
CREATE OR REPLACE FUNCTION drop_message(p_message_id uuid) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_user_id uuid;
BEGIN
    SELECT user_id INTO v_user_id FROM messages WHERE id = p_message_id;
    PERFORM 1 FROM users WHERE id = v_user_id FOR UPDATE;
    UPDATE messages SET dropped_at = clock_timestamp() WHERE id = p_message_id AND state = 'dead';
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN v_user_id;
END $$;
