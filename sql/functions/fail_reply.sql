-- Ends a reply that is not sent and will not be, and notes that its user's bot is to be told. The caller holds the out
-- lane's row lock.
CREATE OR REPLACE FUNCTION fail_reply(p_reply_id uuid, p_word text, p_code text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM end_reply(p_reply_id, 'failed', p_word, p_code);
    INSERT INTO failures_to_tell (reply_id, user_id, word, code, failed_at)
    SELECT id, user_id, p_word, p_code, failed_at FROM messages WHERE id = p_reply_id
    ON CONFLICT DO NOTHING;
END $$;
