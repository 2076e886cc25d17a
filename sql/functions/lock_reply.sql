-- Locks a reply's lane and the reply itself, waiting, and reads it as it is then. NULL: there is none, or it is no more as the caller
-- saw it (p_version: its row's xmin).
CREATE OR REPLACE FUNCTION lock_reply(p_reply_id uuid, p_version text) RETURNS messages
LANGUAGE plpgsql AS $$
DECLARE
    v_reply messages;
BEGIN
    PERFORM lock_out_lane(user_id, true) FROM messages WHERE id = p_reply_id AND direction = 'out';
    SELECT * INTO v_reply FROM messages
     WHERE id = p_reply_id AND direction = 'out' AND xmin::text = coalesce(p_version, xmin::text)
       FOR NO KEY UPDATE;
    RETURN v_reply;
END $$;
