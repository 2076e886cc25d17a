-- Ends one session, for a reason, at an instant of logical time. The caller holds the user's row lock.
-- An ended session stays as it is. Returns whether it was open.
CREATE OR REPLACE FUNCTION end_session(p_session_id uuid, p_ended_at timestamptz, p_reason text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE conversation_sessions
       SET status = 'ended', ended_at = greatest(p_ended_at, last_message_at), ended_reason = p_reason
     WHERE id = p_session_id AND status <> 'ended';
    RETURN FOUND;
END $$;
