-- Says for a reply of whose fate nobody knows what an operator has found out: sent or failed. Others are left alone, and
-- so is one whose request is under way.
-- p_version: as for resend_reply. Locks the user's out lane. Returns whether it was done.
CREATE OR REPLACE FUNCTION settle_reply(p_reply_id uuid, p_state text, p_version text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_reply messages := lock_reply(p_reply_id, p_version);
    v_at timestamptz := clock_timestamp();
    v_state text := leaves_outbox(v_reply, ARRAY['unknown']);
BEGIN
    IF v_state IS DISTINCT FROM 'unknown' THEN
        RETURN false;
    END IF;
    UPDATE messages
       SET state = p_state, given_up_at = NULL,
           sent_at = CASE p_state WHEN 'sent' THEN coalesce(sent_at, v_at) ELSE sent_at END,
           failed_at = CASE p_state WHEN 'failed' THEN v_at END,
           failure = CASE p_state WHEN 'failed' THEN 'operator' END
     WHERE id = p_reply_id;
    IF p_state = 'failed' THEN
        INSERT INTO failures_to_tell (reply_id, user_id, word, failed_at)
        VALUES (p_reply_id, v_reply.user_id, 'operator', v_at) ON CONFLICT DO NOTHING;
    END IF;
    RETURN true;
END $$;
