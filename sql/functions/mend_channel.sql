-- Lets a broken channel send again: its provider has taken what was asked at p_asked_at. That was before it broke, or another
-- transaction notes something of the channel: then nothing changes, and the next one finds it.
CREATE OR REPLACE FUNCTION mend_channel(p_channel text, p_asked_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM channel_holds WHERE channel = p_channel AND broken_at < p_asked_at)
       AND lock_name('hold:' || p_channel, false) THEN
        UPDATE channel_holds SET broken_at = NULL, word = NULL, code = NULL, probe_at = NULL
         WHERE channel = p_channel AND broken_at < p_asked_at;
    END IF;
END $$;
