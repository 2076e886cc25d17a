-- Ends a user's open session by command. The command covers every message already accepted: with some waiting it is
-- noted on the last of them and takes effect when that is terminal. Its instant becomes the user's logical time, so
-- that whatever is accepted later lies after it. A redriven message is not waited for: it has its session already.
-- Returns the reason of the end, 'noted', or NULL when no session was open and nothing waits.
CREATE OR REPLACE FUNCTION request_session_end(
    p_user_id uuid, p_reason text DEFAULT 'operator', p_now timestamptz DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_user users;
BEGIN
    PERFORM 1 FROM users WHERE id = p_user_id FOR UPDATE;
    UPDATE users SET last_accepted_at = greatest(coalesce(p_now, clock_timestamp()), last_accepted_at)
     WHERE id = p_user_id
    RETURNING * INTO v_user;
    -- A note that is there already came first: it ends the session, and this command finds none.
    UPDATE messages
       SET end_at = coalesce(end_at, v_user.last_accepted_at), end_reason = coalesce(end_reason, p_reason)
     WHERE user_id = p_user_id AND seq = (
               SELECT max(seq) FROM messages
                WHERE user_id = p_user_id AND state = 'received' AND session_id IS NULL);
    IF FOUND THEN
        RETURN 'noted';
    END IF;
    RETURN end_open_session(v_user, v_user.last_accepted_at, p_reason);
END $$;
