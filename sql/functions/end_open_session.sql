-- Ends a user's open session by command at p_at, unless the policy ended it before: then with the policy's instant
-- and reason. The caller holds the user's row lock. Returns the reason, or NULL when none was open.
CREATE OR REPLACE FUNCTION end_open_session(p_user users, p_at timestamptz, p_reason text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_reason text := end_session_if_over(p_user, p_at);
    v_session_id uuid;
BEGIN
    IF v_reason IS NULL THEN
        SELECT id INTO v_session_id FROM conversation_sessions WHERE user_id = p_user.id AND status <> 'ended';
        IF end_session(v_session_id, p_at, p_reason) THEN
            v_reason := p_reason;
        END IF;
    END IF;
    RETURN v_reason;
END $$;
