-- Gives a reply up that waits, or of whose fate nobody knows: it is not sent any more. One whose request is under way is
-- left alone.
-- p_version: as for resend_reply. Locks the user's out lane. Returns whether it was done.
CREATE OR REPLACE FUNCTION drop_reply(p_reply_id uuid, p_version text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_reply messages := lock_reply(p_reply_id, p_version);
BEGIN
    IF coalesce(leaves_outbox(v_reply, ARRAY['pending', 'unknown']), '') NOT IN ('pending', 'unknown') THEN
        RETURN false;
    END IF;
    UPDATE messages SET state = 'dropped', given_up_at = NULL WHERE id = p_reply_id;
    RETURN true;
END $$;
