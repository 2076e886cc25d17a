-- Takes on to find out whether a broken channel sends again, by one reply. Returns whether it is ours: one does at a time,
-- each half a minute.
CREATE OR REPLACE FUNCTION claim_probe(p_channel text, p_at timestamptz, p_waits boolean) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM channel_holds WHERE channel = p_channel AND probe_at <= p_at)
       OR NOT lock_name('hold:' || p_channel, p_waits) THEN
        RETURN false;
    END IF;
    UPDATE channel_holds SET probe_at = p_at + interval '30 s' WHERE channel = p_channel AND probe_at <= p_at;
    RETURN FOUND;
END $$;
