-- Decides which policy a channel has: its row, or the defaults.
CREATE OR REPLACE FUNCTION policy_of(p_channel text) RETURNS channel_policies
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_policy channel_policies;
BEGIN
    SELECT * INTO v_policy FROM channel_policies WHERE channel = p_channel;
    IF NOT FOUND THEN
        v_policy := (p_channel, 25200, NULL, NULL, NULL, 25200, false, 1);
    END IF;
    RETURN v_policy;
END $$;
