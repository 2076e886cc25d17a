-- Names a user's first replies that are not terminal, in their order: who learns of them lets the out lane know. A lane
-- hands out what is lowest, whatever woke it, so that further ones need not be named, nor those below what was sent last,
-- unless they are of the turn p_seq.
CREATE OR REPLACE FUNCTION waiting_replies(p_user_id uuid, p_seq bigint DEFAULT NULL) RETURNS uuid[]
LANGUAGE plpgsql AS $$
DECLARE
    v_from_seq bigint := (SELECT from_seq FROM out_lanes WHERE user_id = p_user_id);
BEGIN
    RETURN ARRAY(
        SELECT id FROM outbox WHERE user_id = p_user_id AND turn_seq >= least(coalesce(v_from_seq, 0), p_seq)
         ORDER BY turn_seq, ordinal LIMIT 16);
END $$;
