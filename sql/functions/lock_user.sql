-- Locks a user's row against every other writer, and reads it. NULL: there is none, or another transaction holds it
-- and p_waits is false. NO KEY UPDATE does not hold up the foreign-key checks of others.
CREATE OR REPLACE FUNCTION lock_user(p_user_id uuid, p_waits boolean DEFAULT true) RETURNS users
LANGUAGE plpgsql AS $$
DECLARE
    v_user users;
BEGIN
    IF p_waits THEN
        SELECT * INTO v_user FROM users WHERE id = p_user_id FOR NO KEY UPDATE;
    ELSE
        SELECT * INTO v_user FROM users WHERE id = p_user_id FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    RETURN v_user;
END $$;
