-- Tells whether a session ended at the instant, and for the reason, that its channel's policy gives today.
-- After a change of the policy, sessions that the old one ended may answer false.
CREATE OR REPLACE FUNCTION is_policy_end(p_session conversation_sessions) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_channel text;
    v_end record;
BEGIN
    IF p_session.ended_reason IS NULL OR p_session.ended_reason NOT IN ('timeout', 'end_of_day', 'max_age') THEN
        RETURN false;
    END IF;
    SELECT channel INTO v_channel FROM users WHERE id = p_session.user_id;
    v_end := session_end_by_policy(v_channel, p_session.started_at, p_session.last_message_at);
    RETURN v_end.ends_at = p_session.ended_at AND v_end.reason = p_session.ended_reason;
END $$;
