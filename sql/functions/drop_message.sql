-- Drops a dead message: it stays dead, in its place and session, and is listed no more. Dying again, after somebody
-- redrove it all the same, it is listed again. p_died_at names the death that the caller saw; NULL: whichever.
-- Locks the user's row. Returns the user, or NULL when the message is not dead.
CREATE OR REPLACE FUNCTION drop_message(p_message_id uuid, p_died_at timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_user_id uuid;
BEGIN
    PERFORM lock_user((SELECT user_id FROM messages WHERE id = p_message_id));
    UPDATE messages SET dropped_at = coalesce(dropped_at, clock_timestamp())
     WHERE id = p_message_id AND state = 'dead' AND processed_at = coalesce(p_died_at, processed_at)
    RETURNING user_id INTO v_user_id;
    RETURN v_user_id;
END $$;
