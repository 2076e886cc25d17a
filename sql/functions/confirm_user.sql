-- Confirms that a user is the person whom we knew before somebody else might have got the number: the state that was put
-- aside is given back, under what has been written since. p_owner_changed_at names the change that the caller saw, so
-- that a repeated call confirms no later one; NULL: whichever. Returns whether there was one to confirm.
CREATE OR REPLACE FUNCTION confirm_user(p_user_id uuid, p_owner_changed_at timestamptz DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_user users := lock_user(p_user_id);
BEGIN
    IF v_user.owner_changed_at IS DISTINCT FROM coalesce(p_owner_changed_at, v_user.owner_changed_at)
       OR v_user.owner_changed_at IS NULL THEN
        RETURN false;
    END IF;
    UPDATE users
       SET owner_changed_at = NULL, state = coalesce(state_aside, '{}') || state, state_aside = NULL,
           version = version + 1
     WHERE id = p_user_id;
    UPDATE inbox SET puts_state_aside = false
     WHERE user_id = p_user_id AND seq >= v_user.next_seq AND puts_state_aside;
    RETURN true;
END $$;
