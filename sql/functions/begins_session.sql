-- Whether a session began with this message. Times alone do not show it: while a clock is behind, several messages of a
-- user have the same.
CREATE OR REPLACE FUNCTION begins_session(p_session conversation_sessions, p_message inbox) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT p_message.accepted_at = p_session.started_at AND NOT EXISTS (
        SELECT FROM messages WHERE session_id = p_session.id AND turn_seq < p_message.seq)
$$;
