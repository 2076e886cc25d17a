-- Takes what a provider said of a reply before the reply was marked as accepted under this id. The caller holds the user's
-- out lane, and the id's name (lock_name) unless our key told the reply, and has moved the reply. Returns the reply's
-- state then.
CREATE OR REPLACE FUNCTION take_kept_statuses(p_reply_id uuid, p_channel text, p_provider_id text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_status reply_statuses;
BEGIN
    FOR v_status IN
        DELETE FROM reply_statuses WHERE channel = p_channel AND provider_id = p_provider_id RETURNING *
    LOOP
        PERFORM move_reply(p_reply_id, to_jsonb(v_status));
    END LOOP;
    RETURN (SELECT state FROM messages WHERE id = p_reply_id);
END $$;
