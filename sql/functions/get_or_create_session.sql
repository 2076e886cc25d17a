-- Decides in which session a user's message belongs. The only code that creates a session.
--
-- Locks the user's row first, then reads: under READ COMMITTED every statement after the lock sees what the holder
-- before us committed. The unique index is the last line, not the mechanism.
-- With the user's id alone it judges by the oldest waiting message, else by now. Called twice it answers the same.
-- A redriven message does not count as waiting here: it has its session, perhaps long ended, and a session opened at
-- its old time would lie across later ones.
-- An error is an error: nothing here ends or creates a session because something else went wrong.
CREATE OR REPLACE FUNCTION get_or_create_session(p_user_id uuid, p_accepted_at timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_user users;
    v_session conversation_sessions;
    v_at timestamptz := p_accepted_at;
    v_reason text;
    v_ends_at timestamptz;
    v_before conversation_sessions;
BEGIN
    v_user := lock_user(p_user_id);
    IF v_user.id IS NULL THEN
        RAISE EXCEPTION 'there is no user %', p_user_id
            USING ERRCODE = 'no_data_found', HINT = 'A user exists from the first accepted message on.';
    END IF;
    IF v_at IS NULL THEN
        SELECT accepted_at INTO v_at FROM inbox
         WHERE user_id = p_user_id AND seq >= v_user.next_seq AND session_id IS NULL ORDER BY seq LIMIT 1;
    END IF;
    IF v_at IS NULL THEN
        v_at := greatest(clock_timestamp(), v_user.last_accepted_at);
        UPDATE users SET last_accepted_at = v_at WHERE id = p_user_id;
    END IF;

    SELECT * INTO v_session FROM conversation_sessions WHERE user_id = p_user_id AND status <> 'ended';
    IF FOUND THEN
        v_reason := should_create_new_session(
            v_user.channel, v_session.started_at, v_session.last_message_at, v_at);
        IF v_reason IS NULL THEN
            IF v_session.status = 'escalated' THEN
                PERFORM end_escalation_if_over(v_user, v_at);
            END IF;
            RETURN v_session.id;
        END IF;
        v_ends_at := (session_end_by_policy(
            v_user.channel, v_session.started_at, v_session.last_message_at)).ends_at;
        PERFORM end_session(v_session.id, least(v_ends_at, v_at), v_reason);
    END IF;
    INSERT INTO conversation_sessions (user_id, started_at, last_message_at, sweep_at)
    VALUES (p_user_id, v_at, v_at, (session_end_by_policy(v_user.channel, v_at, v_at)).ends_at)
    RETURNING id INTO v_session.id;
    SELECT * INTO v_before FROM conversation_sessions
     WHERE user_id = p_user_id AND id <> v_session.id ORDER BY started_at DESC, ended_at DESC LIMIT 1;
    RAISE NOTICE 'session_opened' USING ERRCODE = 'OL001', DETAIL = jsonb_build_object(
        'session_id', v_session.id, 'user_id', p_user_id, 'started_at', v_at,
        'because', coalesce(v_before.ended_reason, 'first'), 'previous_session_id', v_before.id);
    RETURN v_session.id;
END $$;
