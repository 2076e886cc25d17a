-- Decides in which session a user's message belongs. The only code that creates a session.
--
-- Locks the user's row first, then reads: under READ COMMITTED every statement after the lock sees what the holder
-- before us committed. The unique index is the last line, not the mechanism.
-- With the user's id alone it judges by the oldest waiting message, else by now. Called twice it answers the same.
-- An error is an error: nothing here ends or creates a session because something else went wrong.
CREATE OR REPLACE FUNCTION get_or_create_session(
    p_user_id uuid, p_accepted_at timestamptz DEFAULT NULL, p_seq bigint DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_user users;
    v_session conversation_sessions;
    v_at timestamptz := p_accepted_at;
    v_seq bigint := p_seq;
    v_reason text;
    v_ends_at timestamptz;
BEGIN
    SELECT * INTO v_user FROM users WHERE id = p_user_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no user %', p_user_id
            USING ERRCODE = 'no_data_found', HINT = 'A user exists from the first accepted message on.';
    END IF;
    IF v_at IS NULL THEN
        SELECT accepted_at, seq INTO v_at, v_seq FROM messages
         WHERE user_id = p_user_id AND state = 'received' ORDER BY seq LIMIT 1;
    END IF;
    IF v_at IS NULL THEN
        v_at := greatest(clock_timestamp(), v_user.last_accepted_at);
        UPDATE users SET last_accepted_at = v_at WHERE id = p_user_id;
    END IF;
    v_seq := coalesce(v_seq, v_user.last_seq + 1);

    SELECT * INTO v_session FROM conversation_sessions WHERE user_id = p_user_id AND status <> 'ended';
    IF v_session.id IS NOT NULL THEN
        v_reason := should_create_new_session(
            v_user.channel, v_session.started_at, v_session.last_message_at, v_at);
        IF v_reason IS NOT NULL THEN
            v_ends_at := (session_end_by_policy(
                v_user.channel, v_session.started_at, v_session.last_message_at)).ends_at;
        END IF;
    END IF;

    -- A noted end that comes before the policy's.
    IF v_seq > v_user.end_after_seq THEN
        IF v_reason IS NULL OR v_user.end_at < v_ends_at THEN
            v_reason := v_user.end_reason;
            v_ends_at := v_user.end_at;
        END IF;
        UPDATE users SET end_after_seq = NULL, end_at = NULL, end_reason = NULL WHERE id = p_user_id;
    END IF;

    IF v_session.id IS NOT NULL AND v_reason IS NULL THEN
        IF v_session.status = 'escalated' THEN
            UPDATE conversation_sessions SET status = 'active', escalated_at = NULL
             WHERE id = v_session.id
               AND escalated_at + make_interval(secs => (policy_of(v_user.channel)).escalation_timeout_s) <= v_at;
        END IF;
        RETURN v_session.id;
    END IF;

    IF v_session.id IS NOT NULL THEN
        PERFORM end_session(v_session.id, least(v_ends_at, v_at), v_reason);
    END IF;
    INSERT INTO conversation_sessions (user_id, started_at, last_message_at) VALUES (p_user_id, v_at, v_at)
    RETURNING id INTO v_session.id;
    RETURN v_session.id;
END $$;
