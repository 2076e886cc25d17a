-- Lets a dead message wait again, with its number and its session; being the lowest it runs next.
-- Locks the user's row. Returns the user, or NULL when the message is not dead.
CREATE OR REPLACE FUNCTION redrive_message(p_message_id uuid) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_user_id uuid;
BEGIN
    SELECT user_id INTO v_user_id FROM messages WHERE id = p_message_id;
    PERFORM 1 FROM users WHERE id = v_user_id FOR UPDATE;
    UPDATE messages
       SET state = 'received', attempts = 0, deaths = 0, last_error = NULL, processed_at = NULL,
           redriven_at = clock_timestamp()
     WHERE id = p_message_id AND state = 'dead';
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE users SET waiting = waiting + 1 WHERE id = v_user_id;
    RETURN v_user_id;
END $$;
