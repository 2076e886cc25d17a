-- Ends open sessions whose time is over although their users write nothing more: at most p_ends_max of them.
--
-- Walks those that may be over, oldest first: sweep_at is the instant at which the policy ended the session when it was
-- last looked at. One whose messages have moved its end since is moved on to that end; so is one whose user has waiting
-- messages (they decide for themselves), by a minute. What is locked is left for the next call. One that cannot be
-- judged or ended (a time zone that Postgres does not know) stands alone in a block of its own, is reported by a notice,
-- and looked at again after ten minutes: none behind it waits for it.
-- Locks one user at a time, then looks again. ended_at is the policy's instant, so it does not matter when, or whether,
-- the sweep comes by.
--
-- A message that arrives as its session is swept, both orders:
--   accept locks the user first: the sweep skips the user while it is locked, and then since the message waits; the
--     message decides by its own time: in the same session if it came before the end.
--   the sweep locks the user first: accept waits for it, reads the clock after that, and so comes after the end. Should
--     the clock have gone back since, the end is the user's logical time: no message is accepted before it.
-- Returns how many it looked at, and the users whose session it ended.
CREATE OR REPLACE FUNCTION sweep_sessions(
    p_looks_max integer, p_ends_max integer, p_now timestamptz DEFAULT NULL, OUT seen integer, OUT ended_users uuid[])
LANGUAGE plpgsql AS $$
DECLARE
    v_session conversation_sessions;
    v_user users;
    v_ends_at timestamptz;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
BEGIN
    seen := 0;
    ended_users := '{}';
    FOR v_session IN
        SELECT * FROM conversation_sessions s
         WHERE s.status <> 'ended' AND s.sweep_at <= v_now ORDER BY s.sweep_at LIMIT p_looks_max
    LOOP
        EXIT WHEN cardinality(ended_users) >= p_ends_max;
        seen := seen + 1;
        BEGIN
            v_user := lock_user(v_session.user_id, false);
            CONTINUE WHEN v_user.id IS NULL;
            IF v_user.waiting > 0 THEN
                v_ends_at := v_now + interval '1 minute';
            ELSIF end_session_if_over(v_user, v_now) IS NOT NULL THEN
                ended_users := ended_users || v_user.id;
                CONTINUE;
            ELSE
                SELECT (session_end_by_policy(v_user.channel, s.started_at, s.last_message_at)).ends_at INTO v_ends_at
                  FROM conversation_sessions s WHERE s.id = v_session.id;
            END IF;
            UPDATE conversation_sessions SET sweep_at = v_ends_at WHERE id = v_session.id AND status <> 'ended';
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'session_not_swept' USING ERRCODE = 'OL001', DETAIL = jsonb_build_object(
                'user_id', v_session.user_id, 'session_id', v_session.id, 'sqlstate', SQLSTATE);
            -- The block's end has given its lock back.
            IF (lock_user(v_session.user_id, false)).id IS NOT NULL THEN
                UPDATE conversation_sessions SET sweep_at = v_now + interval '10 minutes'
                 WHERE id = v_session.id AND status <> 'ended';
            END IF;
        END;
    END LOOP;
END $$;
