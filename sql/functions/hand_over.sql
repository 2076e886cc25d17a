-- Gives a user's conversation to the human who has just written to the user, past us: escalates the session in use, or
-- opens one and escalates that. The caller holds the user's row lock.
-- Returns the session, or NULL when it cannot be open yet, because messages of an earlier one wait: then the human's own
-- line waits behind them, and escalates the session as its turn begins.
CREATE OR REPLACE FUNCTION hand_over(p_user users, p_at timestamptz) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_escalated text := escalate_session(p_user.id, p_at);
    v_session_id uuid;
BEGIN
    IF v_escalated = 'noted' THEN
        RETURN NULL;
    ELSIF v_escalated IS NOT NULL THEN
        RETURN v_escalated::uuid;
    ELSIF EXISTS (SELECT FROM inbox WHERE user_id = p_user.id AND seq >= p_user.next_seq AND session_id IS NULL) THEN
        RETURN NULL;
    END IF;
    v_session_id := get_or_create_session(p_user.id, p_at);
    UPDATE conversation_sessions SET status = 'escalated', escalated_at = p_at WHERE id = v_session_id;
    RETURN v_session_id;
END $$;
