-- Writes when a channel's sessions end. Turns go by it at once. Where a session ends sooner than it was to, the sweeper
-- finds that out when it would have looked anyway: it does not matter when it comes by.
CREATE OR REPLACE FUNCTION publish_policy(p_policy jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_policy channel_policies := jsonb_populate_record(NULL::channel_policies, p_policy);
BEGIN
    IF v_policy IS DISTINCT FROM (SELECT p FROM channel_policies p WHERE p.channel = v_policy.channel) THEN
        INSERT INTO channel_policies SELECT v_policy.*
        ON CONFLICT (channel) DO UPDATE
           SET idle_timeout_s = excluded.idle_timeout_s, day_start = excluded.day_start,
               timezone = excluded.timezone, max_age_s = excluded.max_age_s,
               escalation_timeout_s = excluded.escalation_timeout_s;
    END IF;
END $$;
