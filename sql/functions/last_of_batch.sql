-- Finds how far the batch goes whose lowest member is p_lowest, beyond what it has already (p_lowest.batch_last): at most
-- p_most further messages, each of which may join the one before it. Returns its last number.
-- The caller holds the user's row lock.
CREATE OR REPLACE FUNCTION last_of_batch(p_user users, p_lowest inbox, p_started_at timestamptz, p_most integer)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_last inbox := p_lowest;
    v_next inbox;
BEGIN
    IF p_lowest.batch_last > p_lowest.seq THEN
        SELECT * INTO v_last FROM inbox WHERE user_id = p_user.id AND seq = p_lowest.batch_last;
    END IF;
    FOR v_next IN
        SELECT * FROM inbox WHERE user_id = p_user.id AND seq > v_last.seq ORDER BY seq LIMIT p_most
    LOOP
        EXIT WHEN joins_batch(p_user.channel, p_started_at, v_last, v_next) IS NOT TRUE;
        v_last := v_next;
    END LOOP;
    RETURN v_last.seq;
END $$;
