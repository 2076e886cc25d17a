-- Whether a reply is the bot's answer to a reply_failed event. What was said from outside a turn answers nothing.
CREATE OR REPLACE FUNCTION answers_a_failure(p_reply_id uuid) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM messages r JOIN messages e ON e.user_id = r.user_id AND e.turn_seq = r.turn_seq AND e.ordinal = 0
         WHERE r.id = p_reply_id AND r.external_id IS NULL AND e.event = 'reply_failed');
$$;
