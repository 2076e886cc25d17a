-- Ends a user's open session by command at p_at, unless the policy ended it before: then with the policy's instant
-- and reason. The caller holds the user's row lock. Returns the reason.
CREATE OR REPLACE FUNCTION end_session_at(
    p_user users, p_session conversation_sessions, p_at timestamptz, p_reason text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_end record := session_end_by_policy(p_user.channel, p_session.started_at, p_session.last_message_at);
BEGIN
    IF v_end.ends_at <= p_at THEN
        PERFORM end_session(p_session.id, v_end.ends_at, v_end.reason);
        RETURN v_end.reason;
    END IF;
    PERFORM end_session(p_session.id, p_at, p_reason);
    RETURN p_reason;
END $$;
