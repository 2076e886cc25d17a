-- Carries out an end that a command asked for while messages were waiting, once the last of them is terminal.
-- If the policy had ended the session before the command came, the policy's instant and reason stand.
-- The caller holds the user's row lock.
CREATE OR REPLACE FUNCTION apply_noted_end(p_user users) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_session conversation_sessions;
BEGIN
    SELECT * INTO v_session FROM conversation_sessions WHERE user_id = p_user.id AND status <> 'ended';
    IF FOUND THEN
        PERFORM end_session_at(p_user, v_session, p_user.end_at, p_user.end_reason);
    END IF;
    UPDATE users SET end_after_seq = NULL, end_at = NULL, end_reason = NULL WHERE id = p_user.id;
END $$;
