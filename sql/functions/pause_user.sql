-- Keeps a user's messages waiting until resume_user. A running turn still commits.
-- p_pauses names how many pauses the caller saw, so that a repeated call pauses nobody whom somebody has resumed since;
-- NULL: whichever. Returns whether the user is paused now; NULL when there is no such user.
CREATE OR REPLACE FUNCTION pause_user(p_user_id uuid, p_reason text DEFAULT 'operator', p_pauses integer DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users SET pauses = pauses + 1, paused_at = clock_timestamp(), pause_reason = p_reason
     WHERE id = p_user_id AND paused_at IS NULL AND pauses = coalesce(p_pauses, pauses);
    RETURN (SELECT paused_at IS NOT NULL FROM users WHERE id = p_user_id);
END $$;
