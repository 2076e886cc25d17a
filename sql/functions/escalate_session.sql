-- Hands a user's open session to a human: from now on messages are committed without the handler, and the reply of a
-- turn that runs at this moment is withheld. The instant is logical time, as for an end by command.
-- Returns the session, or NULL when none is open.
CREATE OR REPLACE FUNCTION escalate_session(p_user_id uuid, p_now timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_at timestamptz;
    v_session_id uuid;
BEGIN
    PERFORM 1 FROM users WHERE id = p_user_id FOR UPDATE;
    UPDATE users SET last_accepted_at = greatest(coalesce(p_now, clock_timestamp()), last_accepted_at)
     WHERE id = p_user_id
    RETURNING last_accepted_at INTO v_at;
    UPDATE conversation_sessions SET status = 'escalated', escalated_at = coalesce(escalated_at, v_at)
     WHERE user_id = p_user_id AND status <> 'ended'
    RETURNING id INTO v_session_id;
    RETURN v_session_id;
END $$;
