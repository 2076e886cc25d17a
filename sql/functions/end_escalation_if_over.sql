-- Gives an escalated session back to the bot if its user has written nothing for the channel's escalation_timeout_s by
-- p_at, counted from the last message, or from the escalation if that came later. The caller holds the user's row lock.
CREATE OR REPLACE FUNCTION end_escalation_if_over(p_user users, p_at timestamptz) RETURNS void
LANGUAGE sql AS $$
    UPDATE conversation_sessions SET status = 'active'
     WHERE user_id = p_user.id AND status = 'escalated'
       AND greatest(escalated_at, last_message_at)
           + make_interval(secs => (policy_of(p_user.channel)).escalation_timeout_s) <= p_at;
$$;
