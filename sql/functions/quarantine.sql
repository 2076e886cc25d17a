-- Keeps a verified webhook that was not understood, whole. Delivered again it is not kept twice.
--
-- p_kept: {channel, reasons: [text, …], content_type, query, headers}; p_body its raw bytes; p_most: how many of a
-- channel are kept; p_days: for how long. What was answered with 2xx is never removed earlier, for a new one.
-- Returns {id, is_new}; null id: the channel's quarantine is full.
CREATE OR REPLACE FUNCTION quarantine(p_kept jsonb, p_body bytea, p_most integer, p_days integer) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_channel text := p_kept ->> 'channel';
    v_digest bytea := sha256(convert_to(p_kept ->> 'query', 'UTF8') || '\x00'::bytea || p_body);
    v_id uuid;
BEGIN
    IF NOT EXISTS (SELECT FROM quarantined_payloads WHERE channel = v_channel AND digest = v_digest)
       AND (SELECT count(*) FROM quarantined_payloads WHERE channel = v_channel) >= p_most THEN
        RETURN json_build_object('id', NULL, 'is_new', false);
    END IF;
    INSERT INTO quarantined_payloads (channel, reasons, content_type, query, headers, body, digest, expires_at)
    VALUES (v_channel, p_kept -> 'reasons', p_kept ->> 'content_type', p_kept ->> 'query', p_kept -> 'headers', p_body,
            v_digest, clock_timestamp() + make_interval(days => p_days))
    ON CONFLICT (channel, digest) DO NOTHING
    RETURNING id INTO v_id;
    IF FOUND THEN
        RETURN json_build_object('id', v_id, 'is_new', true);
    END IF;
    RETURN (SELECT json_build_object('id', id, 'is_new', false) FROM quarantined_payloads
             WHERE channel = v_channel AND digest = v_digest);
END $$;
