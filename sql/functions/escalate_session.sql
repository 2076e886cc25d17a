-- Hands a user's open session to a human: from now on messages are committed without the handler, and the reply of a
-- turn that runs at this moment is withheld. The instant is logical time, as for an end by command. Asked again, it
-- counts from now.
-- It is the session of the next message that counts: with messages waiting, the one in which the first of them
-- belongs; else the open one, unless its time is over and only nobody has ended it yet.
-- p_session_id, p_escalated_at and p_last_seq name together what the caller saw: the open session (NULL: none), when it
-- was last escalated, and the newest accepted message. A repeated call escalates no later session, and none that
-- somebody has handed back since. Without p_last_seq it is about whatever there is now.
-- Returns the session, or NULL when none is open.
CREATE OR REPLACE FUNCTION escalate_session(
    p_user_id uuid, p_now timestamptz DEFAULT NULL, p_session_id uuid DEFAULT NULL,
    p_escalated_at timestamptz DEFAULT NULL, p_last_seq bigint DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_user users := lock_user(p_user_id);
    v_waits boolean;
    v_open conversation_sessions;
    v_session_id uuid;
BEGIN
    v_waits := EXISTS (
        SELECT FROM inbox WHERE user_id = p_user_id AND seq >= v_user.next_seq AND session_id IS NULL
           AND seq <= coalesce(p_last_seq, v_user.last_seq));
    SELECT * INTO v_open FROM conversation_sessions WHERE user_id = p_user_id AND status <> 'ended';
    IF p_last_seq IS NOT NULL AND v_open.id IS DISTINCT FROM p_session_id AND NOT v_waits THEN
        RETURN NULL;
    ELSIF p_last_seq IS NOT NULL AND v_open.escalated_at IS DISTINCT FROM
          (CASE WHEN v_open.id = p_session_id THEN p_escalated_at END) THEN
        RETURN v_open.id; -- it has been escalated since
    END IF;

    UPDATE users SET last_accepted_at = greatest(coalesce(p_now, clock_timestamp()), last_accepted_at)
     WHERE id = p_user_id
    RETURNING * INTO v_user;
    IF v_waits THEN
        PERFORM get_or_create_session(p_user_id);
    ELSE
        PERFORM end_session_if_over(v_user, v_user.last_accepted_at);
    END IF;
    UPDATE conversation_sessions SET status = 'escalated', escalated_at = v_user.last_accepted_at
     WHERE user_id = p_user_id AND status <> 'ended'
    RETURNING id INTO v_session_id;
    RETURN v_session_id;
END $$;
