-- Takes names from a user: whoever is called so from now on is somebody else. Other users' names stay theirs.
-- The caller holds the user's row lock.
CREATE OR REPLACE FUNCTION drop_names(p_channel text, p_user_id uuid, p_names text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM user_aliases WHERE channel = p_channel AND alias = ANY(p_names) AND user_id = p_user_id;
    IF FOUND THEN
        UPDATE users SET names_moved = true WHERE id = p_user_id;
    END IF;
END $$;
