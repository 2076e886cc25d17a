-- Forgets statuses of replies received before p_before, at most p_most of them: their providers deliver none again.
-- Returns how many. Asked for custom plans: a cached one would read the whole table where nothing is old.
CREATE OR REPLACE FUNCTION forget_statuses(p_before timestamptz, p_most integer) RETURNS integer
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM reply_statuses s USING (
        SELECT channel, provider_id, state, participant FROM reply_statuses WHERE received_at < p_before LIMIT p_most
    ) old
     WHERE (s.channel, s.provider_id, s.state, s.participant)
         = (old.channel, old.provider_id, old.state, old.participant);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
