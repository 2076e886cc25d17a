-- Names a user's first replies that are not terminal, in their order: who learns of them lets the out lane know. A lane
-- hands out what is lowest, whatever woke it, so that further ones need not be named.
CREATE OR REPLACE FUNCTION waiting_replies(p_user_id uuid) RETURNS uuid[]
LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(SELECT id FROM outbox WHERE user_id = p_user_id ORDER BY turn_seq, ordinal LIMIT 16);
END $$;
