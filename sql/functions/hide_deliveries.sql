-- Keeps of deliveries only a hash of their ids, by which what a provider delivers again is known (forgotten_delivery).
CREATE OR REPLACE FUNCTION hide_deliveries(p_channel text, p_external_ids text[]) RETURNS void
LANGUAGE sql AS $$
    WITH known AS (
        DELETE FROM accepted_deliveries
         WHERE channel = p_channel AND external_id = ANY(p_external_ids) AND external_id NOT LIKE 'sha256:%'
        RETURNING *)
    INSERT INTO accepted_deliveries (channel, external_id, user_id, message_id, seq, accepted_at)
    SELECT channel, forgotten_id(external_id), user_id, message_id, seq, accepted_at FROM known
        ON CONFLICT DO NOTHING;
$$;
