-- Forgets the bytes of files whose turns have no reply in the outbox, at most p_most of them. What was kept a moment ago
-- stays: its turn may be committed yet, as long as first the file and then the commit is tried again (COMMIT_HOLD_S is 10
-- minutes at most, for each).
-- Returns how many.
CREATE OR REPLACE FUNCTION forget_files(p_most integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM reply_files WHERE id IN (
        SELECT f.id FROM reply_files f
         WHERE f.created_at < clock_timestamp() - interval '30 min'
           AND NOT EXISTS (SELECT FROM outbox o WHERE o.user_id = f.user_id AND o.turn_seq = f.turn_seq)
         LIMIT p_most);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
