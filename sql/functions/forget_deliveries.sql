-- Forgets deliveries accepted before p_before, at most p_most of them: their providers deliver none again.
-- Returns how many.
CREATE OR REPLACE FUNCTION forget_deliveries(p_before timestamptz, p_most integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM accepted_deliveries d USING (
        SELECT channel, external_id FROM accepted_deliveries WHERE accepted_at < p_before LIMIT p_most) old
     WHERE d.channel = old.channel AND d.external_id = old.external_id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
