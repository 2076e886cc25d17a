-- Takes a reply that was not seen to be sent out of the outbox: `failed`, `unknown` (given up) or `withheld`.
-- The caller holds the out lane's row lock.
CREATE OR REPLACE FUNCTION end_reply(p_reply_id uuid, p_state text, p_word text, p_code text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_requests integer;
BEGIN
    DELETE FROM outbox WHERE id = p_reply_id RETURNING requests INTO v_requests;
    UPDATE messages
       SET state = p_state, send_attempts = coalesce(v_requests, send_attempts), failure = p_word, failure_code = p_code,
           failed_at = CASE p_state WHEN 'failed' THEN clock_timestamp() END,
           given_up_at = CASE p_state WHEN 'unknown' THEN clock_timestamp() END
     WHERE id = p_reply_id;
END $$;
