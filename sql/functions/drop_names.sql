-- Takes names from a user: whoever is called so from now on is somebody else. Other users' names stay theirs.
-- The user remembers the newest 64 of them. The caller holds the user's row lock.
CREATE OR REPLACE FUNCTION drop_names(p_channel text, p_user_id uuid, p_names text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM user_aliases WHERE channel = p_channel AND alias = ANY(p_names) AND user_id = p_user_id;
    IF FOUND THEN
        UPDATE users SET names_moved = true WHERE id = p_user_id;
    END IF;
    UPDATE users SET former_names = (p_names || former_names)[:64]
     WHERE id = p_user_id AND NOT former_names @> p_names;
END $$;
