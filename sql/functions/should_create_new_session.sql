-- Decides whether a message accepted at p_accepted_at belongs to a new session: returns why the open one is over
-- (timeout, end_of_day, max_age), or NULL while it is not.
CREATE OR REPLACE FUNCTION should_create_new_session(
    p_channel text, p_started_at timestamptz, p_last_message_at timestamptz, p_accepted_at timestamptz)
RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_end record;
BEGIN
    v_end := session_end_by_policy(p_channel, p_started_at, p_last_message_at);
    RETURN CASE WHEN v_end.ends_at <= p_accepted_at THEN v_end.reason END;
END $$;
