-- Ends one session, for a reason, at an instant of logical time. The caller holds the user's row lock.
-- An ended session stays as it is. Returns whether it was open. Every end passes here, and raises a notice: see
-- worker/onelane/telemetry/sql_notices.py.
CREATE OR REPLACE FUNCTION end_session(p_session_id uuid, p_ended_at timestamptz, p_reason text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_session conversation_sessions;
BEGIN
    UPDATE conversation_sessions
       SET status = 'ended', ended_at = greatest(p_ended_at, last_message_at), ended_reason = p_reason
     WHERE id = p_session_id AND status <> 'ended'
    RETURNING * INTO v_session;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    RAISE NOTICE 'session_ended' USING ERRCODE = 'OL001', DETAIL = jsonb_build_object(
        'session_id', p_session_id, 'user_id', v_session.user_id, 'reason', p_reason, 'ended_at', v_session.ended_at);
    RETURN true;
END $$;
