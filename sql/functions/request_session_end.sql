-- Ends a user's open session by command. The command covers every message already accepted: with some waiting it is
-- noted and takes effect after the last of them. Its instant becomes the user's logical time, so that whatever is
-- accepted later lies after it.
-- Returns the reason of the end, 'noted', or NULL when no session was open and nothing waits.
CREATE OR REPLACE FUNCTION request_session_end(
    p_user_id uuid, p_reason text DEFAULT 'operator', p_now timestamptz DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_user users;
    v_session conversation_sessions;
    v_last_waiting bigint;
BEGIN
    PERFORM 1 FROM users WHERE id = p_user_id FOR UPDATE;
    UPDATE users SET last_accepted_at = greatest(coalesce(p_now, clock_timestamp()), last_accepted_at)
     WHERE id = p_user_id
    RETURNING * INTO v_user;
    SELECT max(seq) INTO v_last_waiting FROM messages WHERE user_id = p_user_id AND state = 'received';
    IF v_last_waiting IS NOT NULL THEN
        UPDATE users SET end_after_seq = v_last_waiting, end_at = last_accepted_at, end_reason = p_reason
         WHERE id = p_user_id;
        RETURN 'noted';
    END IF;
    SELECT * INTO v_session FROM conversation_sessions WHERE user_id = p_user_id AND status <> 'ended';
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN end_session_at(v_user, v_session, v_user.last_accepted_at, p_reason);
END $$;
