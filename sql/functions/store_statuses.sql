-- Keeps what providers say became of replies, until the outbox reads it. What is known already is left as it is.
--
-- p_statuses: [{channel, provider_id, state, key, participant, at, failure_code}, …]; the last four may be missing.
-- They are inserted in the order of their key, so that two lists never wait for each other.
-- Returns how many are new.
CREATE OR REPLACE FUNCTION store_statuses(p_statuses jsonb) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_count integer;
BEGIN
    INSERT INTO reply_statuses (channel, provider_id, state, participant, key, at, failure_code)
    SELECT s.channel, s.provider_id, s.state, coalesce(s.participant, ''), s.key, s.at, s.failure_code
      FROM jsonb_to_recordset(p_statuses) AS s (channel text, provider_id text, state text, participant text,
                                                key uuid, at timestamptz, failure_code text)
     ORDER BY s.channel, s.provider_id, s.state, s.participant
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
