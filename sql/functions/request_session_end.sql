-- Ends a user's open session by command. The command covers every message already accepted: with some waiting it is
-- noted on the last of them and takes effect when that is terminal. Its instant becomes the user's logical time, so
-- that whatever is accepted later lies after it. A redriven message is not waited for: it has its session already.
-- p_session_id and p_last_seq name together what the caller saw: the open session (NULL: none), and the newest accepted
-- message. A repeated call is noted on no later message, and ends no later session: it answers what became of that one.
-- Without p_last_seq it is about whatever there is now.
-- Returns the reason of the end, 'noted', or NULL when there is nothing to end.
CREATE OR REPLACE FUNCTION request_session_end(
    p_user_id uuid, p_reason text DEFAULT 'operator', p_session_id uuid DEFAULT NULL, p_last_seq bigint DEFAULT NULL,
    p_now timestamptz DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_user users := lock_user(p_user_id);
    v_open uuid;
    v_last bigint;
BEGIN
    SELECT seq INTO v_last FROM inbox
     WHERE user_id = p_user_id AND seq >= v_user.next_seq AND session_id IS NULL
       AND seq <= coalesce(p_last_seq, v_user.last_seq)
     ORDER BY seq DESC LIMIT 1;
    SELECT id INTO v_open FROM conversation_sessions WHERE user_id = p_user_id AND status <> 'ended';
    -- What waits is the caller's, also when its turn has opened the next session since.
    IF v_last IS NULL
       AND (v_open IS NULL OR (p_last_seq IS NOT NULL AND v_open IS DISTINCT FROM p_session_id)) THEN
        RETURN coalesce(
            (SELECT 'noted' FROM messages WHERE user_id = p_user_id AND turn_seq = p_last_seq AND ordinal = 0
                AND end_at IS NOT NULL),
            (SELECT ended_reason FROM conversation_sessions WHERE id = p_session_id AND user_id = p_user_id));
    END IF;
    UPDATE users SET last_accepted_at = greatest(coalesce(p_now, clock_timestamp()), last_accepted_at)
     WHERE id = p_user_id
    RETURNING * INTO v_user;
    IF v_last IS NULL THEN
        RETURN end_open_session(v_user, v_user.last_accepted_at, p_reason);
    END IF;
    -- A note that is there already came first: it ends the session, and this command finds none.
    UPDATE inbox SET end_at = coalesce(end_at, v_user.last_accepted_at), end_reason = coalesce(end_reason, p_reason)
     WHERE user_id = p_user_id AND seq = v_last;
    RETURN 'noted';
END $$;
