-- Hands a user's open session to a human: from now on messages are committed without the handler, and the reply of a
-- turn that runs at this moment is withheld. The instant is logical time, as for an end by command. Asked again, it
-- counts from now.
-- It is the session of the next message that counts: with messages waiting, the one in which the first of them
-- belongs; else the open one, unless its time is over and only nobody has ended it yet.
-- Returns the session, or NULL when none is open.
CREATE OR REPLACE FUNCTION escalate_session(p_user_id uuid, p_now timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_user users;
    v_session_id uuid;
BEGIN
    PERFORM lock_user(p_user_id);
    UPDATE users SET last_accepted_at = greatest(coalesce(p_now, clock_timestamp()), last_accepted_at)
     WHERE id = p_user_id
    RETURNING * INTO v_user;
    PERFORM 1 FROM inbox WHERE user_id = p_user_id AND seq >= v_user.next_seq AND session_id IS NULL;
    IF FOUND THEN
        PERFORM get_or_create_session(p_user_id);
    ELSE
        PERFORM end_session_if_over(v_user, v_user.last_accepted_at);
    END IF;
    UPDATE conversation_sessions SET status = 'escalated', escalated_at = v_user.last_accepted_at
     WHERE user_id = p_user_id AND status <> 'ended'
    RETURNING id INTO v_session_id;
    RETURN v_session_id;
END $$;
