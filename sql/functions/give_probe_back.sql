-- Lets the next reply be a broken channel's probe at once: the one that was marked at p_marked_at has shown nothing of the
-- channel. Nothing was asked under its mark, or the answer was about itself. As mend_channel, it waits for nobody.
CREATE OR REPLACE FUNCTION give_probe_back(p_channel text, p_marked_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM channel_holds WHERE channel = p_channel AND broken_at < p_marked_at)
       AND lock_name('hold:' || p_channel, false) THEN
        UPDATE channel_holds SET probe_at = least(probe_at, clock_timestamp())
         WHERE channel = p_channel AND broken_at < p_marked_at;
    END IF;
END $$;
