-- Takes what a provider said of a reply's requests, by our key, while it was open which of them is the newest. The reply has
-- been given up: nothing else will be known of it, and the latest counts. The caller holds the user's out lane.
CREATE OR REPLACE FUNCTION take_kept_failures(p_reply_id uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_status reply_statuses;
BEGIN
    FOR v_status IN
        WITH kept AS (DELETE FROM reply_statuses WHERE key = p_reply_id RETURNING *)
        SELECT * FROM kept ORDER BY at DESC NULLS LAST
    LOOP
        PERFORM move_reply(p_reply_id, to_jsonb(v_status));
    END LOOP;
END $$;
