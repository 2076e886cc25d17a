-- Whether a waiting message may be answered together with the one before it: both are messages, neither was redriven nor
-- hands its session to a human, the earlier neither closes the batch nor has an end noted on it, the later does not close
-- one either nor has a batch of its own (where one of several is to blame, each runs alone), and the policy puts no border
-- between them. p_started_at: when the session began in which they would lie.
CREATE OR REPLACE FUNCTION joins_batch(p_channel text, p_started_at timestamptz, p_before inbox, p_message inbox)
RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT p_before.kind = 'message' AND p_message.kind = 'message'
       AND NOT p_before.closes AND NOT p_message.closes
       AND p_before.session_id IS NULL AND p_message.session_id IS NULL
       AND p_before.escalate_at IS NULL AND p_message.escalate_at IS NULL
       AND p_before.end_at IS NULL AND NOT p_before.is_busy AND NOT p_message.is_busy
       AND p_message.batch_last IS NULL
       AND should_create_new_session(p_channel, p_started_at, p_before.accepted_at, p_message.accepted_at) IS NULL
$$;
