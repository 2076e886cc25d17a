-- Names a user's open session, unless the policy has ended it by p_at. Ends and opens nothing.
CREATE OR REPLACE FUNCTION open_session_at(p_user users, p_at timestamptz) RETURNS uuid
LANGUAGE sql STABLE AS $$
    SELECT s.id FROM conversation_sessions s
     WHERE s.user_id = p_user.id AND s.status <> 'ended'
       AND should_create_new_session(p_user.channel, s.started_at, s.last_message_at, p_at) IS NULL;
$$;
