-- Gives an escalated session back to the bot. p_session_id and p_escalated_at name the escalation that the caller saw,
-- so that a repeated call ends no later one; NULL: whichever.
-- Locks the user's row. Returns the session, or NULL when it was not escalated.
CREATE OR REPLACE FUNCTION hand_back_session(
    p_user_id uuid, p_session_id uuid DEFAULT NULL, p_escalated_at timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_session_id uuid;
BEGIN
    PERFORM lock_user(p_user_id);
    UPDATE conversation_sessions SET status = 'active'
     WHERE user_id = p_user_id AND status = 'escalated' AND id = coalesce(p_session_id, id)
       AND escalated_at = coalesce(p_escalated_at, escalated_at)
    RETURNING id INTO v_session_id;
    RETURN v_session_id;
END $$;
