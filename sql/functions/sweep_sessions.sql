-- Ends open sessions whose time is over although their users write nothing more, in a bounded batch.
--
-- Walks the open sessions by id, from p_after on. Locks one user at a time and skips a user whose row is locked, or
-- who has waiting messages: those messages decide for themselves. ended_at is the policy's instant, so it does not
-- matter when, or whether, the sweep comes by.
-- Returns (last_id, seen, ended): last_id is where the next batch begins, NULL after the last.
CREATE OR REPLACE FUNCTION sweep_sessions(
    p_after uuid, p_batch_max integer, p_now timestamptz DEFAULT NULL,
    OUT last_id uuid, OUT seen integer, OUT ended_users uuid[])
LANGUAGE plpgsql AS $$
DECLARE
    v_candidate record;
    v_user users;
    v_session conversation_sessions;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_end record;
BEGIN
    seen := 0;
    ended_users := '{}';
    FOR v_candidate IN
        SELECT id, user_id FROM conversation_sessions
         WHERE status <> 'ended' AND id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
         ORDER BY id LIMIT p_batch_max
    LOOP
        last_id := v_candidate.id;
        seen := seen + 1;
        SELECT * INTO v_user FROM users WHERE id = v_candidate.user_id FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND OR v_user.waiting > 0;
        SELECT * INTO v_session FROM conversation_sessions WHERE id = v_candidate.id AND status <> 'ended';
        CONTINUE WHEN NOT FOUND;
        v_end := session_end_by_policy(v_user.channel, v_session.started_at, v_session.last_message_at);
        IF v_end.ends_at <= v_now THEN
            PERFORM end_session(v_session.id, v_end.ends_at, v_end.reason);
            ended_users := ended_users || v_user.id;
        END IF;
    END LOOP;
    IF seen < p_batch_max THEN
        last_id := NULL;
    END IF;
END $$;
