-- Keeps a user's messages waiting until resume_user. A running turn still commits. Returns whether the user exists.
CREATE OR REPLACE FUNCTION pause_user(p_user_id uuid, p_reason text DEFAULT 'operator') RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users SET paused_at = coalesce(paused_at, clock_timestamp()), pause_reason = coalesce(pause_reason, p_reason)
     WHERE id = p_user_id;
    RETURN FOUND;
END $$;
