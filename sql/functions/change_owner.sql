-- Carries out that somebody else may have the number: ends the user's open session, which covers everything accepted
-- before, and puts the user's state aside as it is by then, until confirm_user. What comes later finds nothing earlier.
-- With messages waiting both take effect once the last of them is terminal. The caller holds the user's row lock.
CREATE OR REPLACE FUNCTION change_owner(p_user users, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users SET owner_changed_at = p_at WHERE id = p_user.id;
    IF request_session_end(p_user.id, 'operator', NULL, NULL, p_at) = 'noted' THEN
        UPDATE inbox SET puts_state_aside = true
         WHERE user_id = p_user.id AND seq = (
               SELECT seq FROM inbox WHERE user_id = p_user.id AND seq >= p_user.next_seq AND session_id IS NULL
                ORDER BY seq DESC LIMIT 1);
    ELSE
        UPDATE users SET state_aside = coalesce(state_aside, '{}') || state, state = '{}', version = version + 1
         WHERE id = p_user.id;
    END IF;
END $$;
