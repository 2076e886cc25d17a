-- Deletes quarantined webhooks whose time is over, at most p_most of them. Returns how many.
CREATE OR REPLACE FUNCTION forget_quarantined(p_most integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM quarantined_payloads q USING (
        SELECT id FROM quarantined_payloads WHERE expires_at < clock_timestamp() LIMIT p_most) old
     WHERE q.id = old.id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
