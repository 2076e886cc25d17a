-- Writes when a channel's sessions end, and whether its events make turns (`wants_events`: left as it is when the caller
-- does not know). Turns go by it at once. Where a session ends sooner than it was to, the sweeper finds that out when it
-- would have looked anyway: it does not matter when it comes by.
CREATE OR REPLACE FUNCTION publish_policy(p_policy jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_policy channel_policies := jsonb_populate_record(NULL::channel_policies, p_policy);
    v_before channel_policies;
BEGIN
    SELECT * INTO v_before FROM channel_policies WHERE channel = v_policy.channel;
    v_policy.batch_max := coalesce(v_policy.batch_max, 1);
    v_policy.wants_events := coalesce(v_policy.wants_events, v_before.wants_events, false);
    IF v_policy IS DISTINCT FROM v_before THEN
        INSERT INTO channel_policies SELECT v_policy.*
        ON CONFLICT (channel) DO UPDATE
           SET idle_timeout_s = excluded.idle_timeout_s, day_start = excluded.day_start,
               timezone = excluded.timezone, max_age_s = excluded.max_age_s,
               escalation_timeout_s = excluded.escalation_timeout_s, wants_events = excluded.wants_events,
               batch_max = excluded.batch_max;
    END IF;
END $$;
