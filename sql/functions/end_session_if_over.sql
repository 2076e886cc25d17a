-- Ends a user's open session if the policy's instant has come at p_now: what makes a session that is over and one that
-- the sweep has ended the same. For when nothing waits; a waiting message decides by its own time.
-- No message is accepted before that end, should the clock have gone back. The caller holds the user's row lock.
-- Returns the reason, or NULL when none was over.
CREATE OR REPLACE FUNCTION end_session_if_over(p_user users, p_now timestamptz) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_session conversation_sessions;
    v_end record;
BEGIN
    SELECT * INTO v_session FROM conversation_sessions WHERE user_id = p_user.id AND status <> 'ended';
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    v_end := session_end_by_policy(p_user.channel, v_session.started_at, v_session.last_message_at);
    IF v_end.ends_at > p_now THEN
        RETURN NULL;
    END IF;
    PERFORM end_session(v_session.id, v_end.ends_at, v_end.reason);
    UPDATE users SET last_accepted_at = greatest(last_accepted_at, v_end.ends_at) WHERE id = p_user.id;
    RETURN v_end.reason;
END $$;
