-- Forgets deliveries accepted more than p_days days ago, at most p_most of them: their providers deliver none again. A channel
-- with webhooks in quarantine keeps what it has accepted since p_days days before the oldest: read again, it may be in them.
-- Walks those accepted since p_after, so that what is kept is not read again each time: all from before the oldest webhook of
-- any channel, then an hour a call.
-- Returns how many, and where the next call goes on: NULL at the end of a lap. Asked for custom plans: a cached one would
-- read the whole table where nothing is old.
CREATE OR REPLACE FUNCTION forget_deliveries(
    p_days integer, p_after timestamptz, p_most integer, OUT forgotten integer, OUT reached timestamptz)
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_days interval := make_interval(days => p_days);
    v_before timestamptz := clock_timestamp() - v_days;
    v_kept_since timestamptz := (SELECT min(received_at) - v_days FROM quarantined_payloads);
    v_until timestamptz := least(
        v_before, CASE WHEN p_after < v_kept_since THEN v_kept_since
                       WHEN v_kept_since IS NOT NULL THEN p_after + interval '1 hour' END);
BEGIN
    DELETE FROM accepted_deliveries d USING (
        SELECT channel, external_id
          FROM accepted_deliveries
          LEFT JOIN (SELECT channel, min(received_at) - v_days AS since FROM quarantined_payloads GROUP BY channel) kept
         USING (channel)
         WHERE accepted_at >= p_after AND accepted_at < v_until AND accepted_at < coalesce(since, 'infinity')
         LIMIT p_most) old
     WHERE d.channel = old.channel AND d.external_id = old.external_id;
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    reached := CASE WHEN forgotten >= p_most THEN p_after WHEN v_until < v_before THEN v_until END;
END $$;
