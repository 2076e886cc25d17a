-- Hands a user's open session to a human: from now on messages are committed without the handler, and the reply of a
-- turn that runs at this moment is withheld. The instant is logical time, as for an end by command. Asked again, it
-- counts from now.
-- Which session that is does not depend on how much is worked off: it is the one of the newest message, unless its time
-- is over by now. When it is not open yet, because messages of an earlier one wait, the escalation is noted on those
-- that lie in it, and takes effect as the first of them begins. What waits in an earlier session is the bot's.
-- p_session_id, p_escalated_at, p_last_seq and p_notes name together what the caller saw: the open session (NULL: none),
-- when it was last escalated, the newest accepted message, and how many escalations had been noted. A repeated call
-- escalates no later session, and none that somebody has handed back since. Without p_last_seq it is about whatever
-- there is now.
-- Returns the session's id, 'noted', or NULL when none is open.
CREATE OR REPLACE FUNCTION escalate_session(
    p_user_id uuid, p_now timestamptz DEFAULT NULL, p_session_id uuid DEFAULT NULL,
    p_escalated_at timestamptz DEFAULT NULL, p_last_seq bigint DEFAULT NULL, p_notes integer DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_user users := lock_user(p_user_id);
    v_at timestamptz := greatest(coalesce(p_now, clock_timestamp()), v_user.last_accepted_at);
    v_in_use record := session_in_use_at(v_user, v_at, p_last_seq);
    v_session_id uuid := v_in_use.session_id;
    v_open conversation_sessions;
BEGIN
    SELECT * INTO v_open FROM conversation_sessions WHERE user_id = p_user_id AND status <> 'ended';
    IF p_last_seq IS NOT NULL AND v_open.id IS DISTINCT FROM p_session_id AND v_in_use.next_seq IS NULL THEN
        RETURN NULL;
    ELSIF p_last_seq IS NOT NULL AND v_open.escalated_at IS DISTINCT FROM
          (CASE WHEN v_open.id = p_session_id THEN p_escalated_at END) THEN
        RETURN v_open.id; -- it has been escalated since
    ELSIF v_user.notes <> p_notes THEN
        RETURN 'noted';
    END IF;

    UPDATE users SET last_accepted_at = v_at WHERE id = p_user_id;
    IF v_in_use.next_seq IS NULL THEN
        PERFORM end_session_if_over(v_user, v_at);
    ELSIF v_in_use.opens_seq = v_in_use.next_seq THEN
        v_session_id := get_or_create_session(p_user_id);
    ELSIF v_in_use.opens_seq IS NOT NULL THEN
        UPDATE users SET notes = notes + 1 WHERE id = p_user_id;
        UPDATE inbox SET escalate_at = v_at
         WHERE user_id = p_user_id AND seq BETWEEN v_in_use.opens_seq AND v_in_use.last_seq AND session_id IS NULL;
        RETURN 'noted';
    END IF;
    UPDATE conversation_sessions SET status = 'escalated', escalated_at = v_at WHERE id = v_session_id;
    RETURN v_session_id;
END $$;
