-- Ends open sessions whose time is over although their users write nothing more, in a bounded batch.
--
-- Walks the open sessions by id, from p_after on, and looks without a lock; only a session that is over costs one.
-- Then it locks one user at a time, skips a user whose row is locked or who has waiting messages (those messages decide
-- for themselves), and looks again. ended_at is the policy's instant, so it does not matter when, or whether, the sweep
-- comes by.
--
-- A message that arrives as its session is swept, both orders:
--   accept locks the user first: the sweep skips the user while it is locked, and then since the message waits; the
--     message decides by its own time: in the same session if it came before the end.
--   the sweep locks the user first: accept waits for it, reads the clock after that, and so comes after the end. Should
--     the clock have gone back since, the end is the user's logical time: no message is accepted before it.
-- Returns last_id (where the next batch begins, NULL after the last), seen, and the users whose session it ended.
CREATE OR REPLACE FUNCTION sweep_sessions(
    p_after uuid, p_batch_max integer, p_now timestamptz DEFAULT NULL,
    OUT last_id uuid, OUT seen integer, OUT ended_users uuid[])
LANGUAGE plpgsql AS $$
DECLARE
    v_candidate record;
    v_user users;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
BEGIN
    seen := 0;
    ended_users := '{}';
    FOR v_candidate IN
        SELECT s.id, s.user_id, s.started_at, s.last_message_at, u.channel
          FROM conversation_sessions s JOIN users u ON u.id = s.user_id
         WHERE s.status <> 'ended' AND s.id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
         ORDER BY s.id LIMIT p_batch_max
    LOOP
        last_id := v_candidate.id;
        seen := seen + 1;
        CONTINUE WHEN v_now < (session_end_by_policy(
            v_candidate.channel, v_candidate.started_at, v_candidate.last_message_at)).ends_at;
        SELECT * INTO v_user FROM users WHERE id = v_candidate.user_id FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND OR v_user.waiting > 0;
        IF end_session_if_over(v_user, v_now) IS NOT NULL THEN
            ended_users := ended_users || v_user.id;
        END IF;
    END LOOP;
    IF seen < p_batch_max THEN
        last_id := NULL;
    END IF;
END $$;
