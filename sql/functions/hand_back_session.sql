-- Gives an escalated session back to the bot. Locks the user's row. Returns the session, or NULL when none was
-- escalated.
CREATE OR REPLACE FUNCTION hand_back_session(p_user_id uuid) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_session_id uuid;
BEGIN
    PERFORM 1 FROM users WHERE id = p_user_id FOR UPDATE;
    UPDATE conversation_sessions SET status = 'active', escalated_at = NULL
     WHERE user_id = p_user_id AND status = 'escalated'
    RETURNING id INTO v_session_id;
    RETURN v_session_id;
END $$;
