-- Lets a paused user's messages run again. p_paused_at names the pause that the caller saw, so that a repeated call
-- ends no later one; NULL: whichever. Returns whether the user was paused.
CREATE OR REPLACE FUNCTION resume_user(p_user_id uuid, p_paused_at timestamptz DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users SET paused_at = NULL, pause_reason = NULL
     WHERE id = p_user_id AND paused_at = coalesce(p_paused_at, paused_at);
    RETURN FOUND;
END $$;
