-- Lifts a user's opting out. p_opted_out_at names the one that the caller saw, so that a repeated call lifts no later
-- one; NULL: whichever. Returns whether the user had opted out.
CREATE OR REPLACE FUNCTION opt_in_user(p_user_id uuid, p_opted_out_at timestamptz DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users SET opted_out_at = NULL
     WHERE id = p_user_id AND opted_out_at = coalesce(p_opted_out_at, opted_out_at);
    RETURN FOUND;
END $$;
