-- The summary of the session that the same user had before this one; NULL without one.
CREATE OR REPLACE FUNCTION previous_summary(p_session conversation_sessions) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT summary FROM conversation_sessions
     WHERE user_id = p_session.user_id AND started_at <= p_session.started_at AND id <> p_session.id
     ORDER BY started_at DESC, ended_at DESC LIMIT 1
$$;
