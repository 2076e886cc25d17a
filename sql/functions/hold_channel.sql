-- Lets a channel send nothing until p_until, or, with p_word, until a probe or an operator finds that it sends again.
-- What another has just noted is not moved by less than a second. Raises lock_not_available when another transaction is
-- noting something of the channel, and p_waits is false.
CREATE OR REPLACE FUNCTION hold_channel(
    p_channel text, p_until timestamptz, p_waits boolean, p_word text DEFAULT NULL, p_code text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM channel_holds WHERE channel = p_channel AND CASE
            WHEN p_word IS NULL THEN not_before > p_until - interval '1 s' ELSE broken_at IS NOT NULL END) THEN
        RETURN;
    ELSIF NOT lock_name('hold:' || p_channel, p_waits) THEN
        RAISE lock_not_available USING MESSAGE = 'another transaction holds the channel';
    ELSIF p_word IS NULL THEN
        INSERT INTO channel_holds AS h (channel, not_before) VALUES (p_channel, p_until)
        ON CONFLICT (channel) DO UPDATE SET not_before = greatest(h.not_before, excluded.not_before);
    ELSE
        INSERT INTO channel_holds AS h (channel, broken_at, word, code, probe_at)
        VALUES (p_channel, clock_timestamp(), p_word, p_code, p_until)
        ON CONFLICT (channel) DO UPDATE
           SET broken_at = excluded.broken_at, word = excluded.word, code = excluded.code, probe_at = excluded.probe_at
         WHERE h.broken_at IS NULL;
    END IF;
END $$;
