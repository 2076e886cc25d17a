-- Lets a reply that was not sent, or of which nobody knows, be sent after all, under the same key and in its place: before
-- all that was said after it. One that was given up may arrive twice by this. Its requests are numbered on, so that a late
-- answer to an earlier one is known as such.
-- p_version: the row (its xmin) as the caller saw it; what has changed since is left alone; NULL: whatever it is.
-- Locks the user's out lane. Returns whether it was done.
CREATE OR REPLACE FUNCTION resend_reply(p_reply_id uuid, p_version text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_reply messages := lock_reply(p_reply_id, p_version);
BEGIN
    IF v_reply.state IN ('failed', 'unknown', 'dropped', 'withheld') THEN
        UPDATE provider_messages SET is_extra = true
         WHERE channel = v_reply.channel AND provider_id = v_reply.provider_id;
        UPDATE messages
           SET state = 'pending', provider_id = NULL, failed_at = NULL, failure = NULL, failure_code = NULL,
               given_up_at = NULL
         WHERE id = p_reply_id;
        INSERT INTO outbox (user_id, turn_seq, ordinal, id, channel, requests, resent)
        VALUES (v_reply.user_id, v_reply.turn_seq, v_reply.ordinal, p_reply_id, v_reply.channel, v_reply.send_attempts,
                v_reply.send_attempts > 0 OR v_reply.provider_id IS NOT NULL);
        UPDATE out_lanes SET from_seq = least(from_seq, v_reply.turn_seq) WHERE user_id = v_reply.user_id;
        DELETE FROM failures_to_tell WHERE reply_id = p_reply_id;
        RETURN true;
    END IF;
    RETURN false;
END $$;
