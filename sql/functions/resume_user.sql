-- Lets a paused user's messages run again. Returns whether the user was paused.
CREATE OR REPLACE FUNCTION resume_user(p_user_id uuid) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users SET paused_at = NULL, pause_reason = NULL WHERE id = p_user_id AND paused_at IS NOT NULL;
    RETURN FOUND;
END $$;
