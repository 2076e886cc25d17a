-- Finds behind which turn is said what is said from outside of one: the last that was settled.
-- The caller holds the user's row lock; p_user is the row as it was read then.
CREATE OR REPLACE FUNCTION settled_before(p_user users) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT seq - 1 FROM inbox
         WHERE user_id = p_user.id AND seq >= p_user.next_seq AND session_id IS NULL ORDER BY seq LIMIT 1), p_user.last_seq);
$$;
