-- Moves a reply that was sent by all that its provider has said of one message of it, in whatever order that came:
-- upwards only, failed counting for more than sent and less than delivered. In a group, what one of them got counts.
-- The caller holds the lock of the provider's id (lock_name). Returns the reply's state; NULL when nothing is known.
CREATE OR REPLACE FUNCTION raise_reply(p_reply_id uuid, p_channel text, p_provider_id text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_said record;
    v_before text;
    v_state text;
BEGIN
    SELECT count(*) AS words,
           min(coalesce(at, received_at)) FILTER (WHERE state = 'delivered') AS delivered_at,
           min(coalesce(at, received_at)) FILTER (WHERE state = 'read') AS read_at,
           min(coalesce(at, received_at)) FILTER (WHERE state = 'failed') AS failed_at,
           min(failure) FILTER (WHERE state = 'failed') AS failure,
           min(failure_code) FILTER (WHERE state = 'failed') AS failure_code
      INTO v_said
      FROM reply_statuses WHERE channel = p_channel AND provider_id = p_provider_id;
    IF v_said.words = 0 THEN
        RETURN NULL;
    END IF;
    SELECT state INTO v_before FROM messages WHERE id = p_reply_id;
    UPDATE messages
       SET delivered_at = coalesce(delivered_at, v_said.delivered_at), read_at = coalesce(read_at, v_said.read_at),
           failed_at = coalesce(failed_at, v_said.failed_at), failure = coalesce(failure, v_said.failure),
           failure_code = coalesce(failure_code, v_said.failure_code),
           state = CASE WHEN coalesce(read_at, v_said.read_at) IS NOT NULL THEN 'read'
                        WHEN coalesce(delivered_at, v_said.delivered_at) IS NOT NULL THEN 'delivered'
                        WHEN coalesce(failed_at, v_said.failed_at) IS NOT NULL THEN 'failed' ELSE 'sent' END
     WHERE id = p_reply_id
    RETURNING state INTO v_state;
    IF v_state = 'failed' AND v_before <> 'failed' THEN
        INSERT INTO failures_to_tell (reply_id, user_id, word, code, failed_at)
        SELECT id, user_id, coalesce(failure, 'unreachable'), failure_code, failed_at FROM messages
         WHERE id = p_reply_id
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN v_state;
END $$;
