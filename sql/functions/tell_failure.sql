-- Makes an event of one failed reply: it waits for a turn where the bot has a function for events, else it is a line of
-- history. The caller holds the user's row lock, and has taken the failure off its list: so it is told once.
-- Returns {user_id, message_id, is_waiting}.
CREATE OR REPLACE FUNCTION tell_failure(p_user users, p_failure failures_to_tell) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_accepted accepted_deliveries;
    v_waits boolean := (policy_of(p_user.channel)).wants_events;
    v_item jsonb := jsonb_build_object(
        'kind', 'event', 'event', 'reply_failed', 'parts', jsonb_build_object('reply', jsonb_build_object(
            'id', p_failure.reply_id, 'word', p_failure.word, 'code', p_failure.code)));
BEGIN
    SELECT last_seq + 1 INTO v_accepted.seq FROM users WHERE id = p_user.id; -- another may have been told just now
    v_accepted.channel := p_user.channel;
    v_accepted.external_id := 'reply_failed:' || p_failure.reply_id;
    v_accepted.user_id := p_user.id;
    v_accepted.message_id := new_id();
    v_accepted.accepted_at := greatest(clock_timestamp(), p_user.last_accepted_at);
    v_item := v_item || jsonb_build_object('route', newest_route(p_user.id));
    IF v_waits THEN
        PERFORM keep_waiting(v_item, v_accepted, false);
    ELSE
        PERFORM keep_line(v_item, v_accepted, open_session_at(p_user, v_accepted.accepted_at), false);
    END IF;
    UPDATE users SET last_seq = v_accepted.seq, waiting = waiting + v_waits::integer WHERE id = p_user.id;
    RETURN json_build_object('user_id', p_user.id, 'message_id', v_accepted.message_id, 'is_waiting', v_waits);
END $$;
