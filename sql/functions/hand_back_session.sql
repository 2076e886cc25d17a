-- Gives an escalated session back to the bot, and takes back an escalation that is only noted yet.
-- p_session_id and p_escalated_at name the escalation that the caller saw, p_noted_at the newest noted one, so that a
-- repeated call ends no later one; without any of them it is whichever.
-- Locks the user's row. Returns the session's id, 'noted' when that was all, or NULL when nothing was escalated.
CREATE OR REPLACE FUNCTION hand_back_session(
    p_user_id uuid, p_session_id uuid DEFAULT NULL, p_escalated_at timestamptz DEFAULT NULL,
    p_noted_at timestamptz DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_user users := lock_user(p_user_id);
    v_is_named boolean := p_session_id IS NOT NULL OR p_noted_at IS NOT NULL;
    v_session_id uuid;
BEGIN
    UPDATE conversation_sessions SET status = 'active'
     WHERE user_id = p_user_id AND status = 'escalated' AND (id = p_session_id OR NOT v_is_named)
       AND escalated_at = coalesce(p_escalated_at, escalated_at)
    RETURNING id INTO v_session_id;
    UPDATE inbox SET escalate_at = NULL
     WHERE user_id = p_user_id AND seq >= v_user.next_seq AND escalate_at IS NOT NULL
       AND (escalate_at <= p_noted_at OR NOT v_is_named);
    RETURN coalesce(v_session_id::text, CASE WHEN FOUND THEN 'noted' END);
END $$;
