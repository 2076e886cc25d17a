-- Decides whether a human has a user's conversation at p_at, once all that waits is worked off. A session or an escalation
-- that is over before the first of that ends; where the first is the human's, so it is noted on it, and goes with it.
-- What was redriven does not count as waiting. The caller holds the user's row lock.
CREATE OR REPLACE FUNCTION note_human(p_user users, p_at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_waiting record;
    v_session conversation_sessions;
BEGIN
    SELECT min(seq) AS first, min(accepted_at) AS first_at, max(accepted_at) AS last_at INTO v_waiting
      FROM inbox WHERE user_id = p_user.id AND seq >= p_user.next_seq AND session_id IS NULL;
    PERFORM end_session_if_over(p_user, coalesce(v_waiting.first_at, p_at));
    PERFORM end_escalation_if_over(p_user, coalesce(v_waiting.first_at, p_at));
    SELECT * INTO v_session FROM conversation_sessions WHERE user_id = p_user.id AND status = 'escalated';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE inbox SET escalate_at = coalesce(escalate_at, v_session.escalated_at)
     WHERE user_id = p_user.id AND seq = v_waiting.first;
    RETURN (session_in_use_at(p_user, p_at)).session_id IS NOT NULL
       AND greatest(v_session.escalated_at, v_session.last_message_at, v_waiting.last_at)
           + make_interval(secs => (policy_of(p_user.channel)).escalation_timeout_s) > p_at;
END $$;
