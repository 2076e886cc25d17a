-- Hands a session to a human, as a command has noted on its message.
CREATE OR REPLACE FUNCTION escalate_as_noted(p_session_id uuid, p_at timestamptz) RETURNS conversation_sessions
LANGUAGE sql AS $$
    UPDATE conversation_sessions SET status = 'escalated', escalated_at = greatest(escalated_at, p_at)
     WHERE id = p_session_id RETURNING *;
$$;
