-- Lets a dead message wait again, with its number and its session; being the lowest it runs next.
-- An end that was noted on it took effect when it died. Whoever has the session when it runs again handles it: so a
-- session whose time is over is ended first, and so is an escalation; by the next waiting message, else by now.
-- What died before somebody else may have got the number waits for confirm_user: nothing earlier is offered. What died
-- before its user was merged waits behind all that the other has, at that one's time, as if it had just come.
-- p_died_at names the death that the caller saw, so that a repeated call does nothing more; NULL: whichever.
-- Locks the user's row. Returns the user whose it is now, or NULL when the message is not dead.
CREATE OR REPLACE FUNCTION redrive_message(
    p_message_id uuid, p_died_at timestamptz DEFAULT NULL, p_now timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_dead messages;
    v_user users;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_at timestamptz;
    v_redriven_at timestamptz;
BEGIN
    SELECT * INTO v_dead FROM messages WHERE id = p_message_id;
    v_user := lock_user(v_dead.user_id);
    IF v_user.merged_into IS NOT NULL THEN
        v_user := lock_user(v_user.merged_into);
    END IF;
    IF v_user.owner_changed_at >= v_dead.accepted_at THEN
        RETURN NULL;
    END IF;
    DELETE FROM messages
     WHERE id = p_message_id AND state = 'dead' AND processed_at = coalesce(p_died_at, processed_at)
    RETURNING * INTO v_dead;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT accepted_at INTO v_at FROM inbox
     WHERE user_id = v_user.id AND seq >= v_user.next_seq AND session_id IS NULL ORDER BY seq LIMIT 1;
    PERFORM end_session_if_over(v_user, coalesce(v_at, v_now));
    PERFORM end_escalation_if_over(v_user, coalesce(v_at, v_now));
    v_redriven_at := greatest(v_now, v_user.last_accepted_at);
    IF v_user.id <> v_dead.user_id THEN
        v_dead.user_id := v_user.id;
        v_dead.session_id := NULL;
        v_dead.seq := v_user.last_seq + 1;
        v_dead.accepted_at := v_redriven_at;
        v_redriven_at := NULL;
        UPDATE users SET last_seq = v_dead.seq, last_accepted_at = v_dead.accepted_at WHERE id = v_user.id;
        UPDATE accepted_deliveries SET user_id = v_user.id, seq = v_dead.seq
         WHERE channel = v_dead.channel AND external_id = v_dead.external_id;
    END IF;
    INSERT INTO inbox (user_id, seq, id, session_id, kind, channel, external_id, event, text, button, closes,
                       attachments, parts, raw, has_payload, quoted, author, mentioned, repairs, edited_text,
                       deleted_at, route, traceparent, sent_at, accepted_at, redriven_at)
    VALUES (v_dead.user_id, v_dead.seq, v_dead.id, v_dead.session_id, v_dead.kind, v_dead.channel, v_dead.external_id,
            v_dead.event, v_dead.text, v_dead.button, v_dead.closes, v_dead.attachments, v_dead.parts, v_dead.raw,
            v_dead.has_payload, v_dead.quoted, v_dead.author, v_dead.mentioned, v_dead.repairs, v_dead.edited_text,
            v_dead.deleted_at, v_dead.route, v_dead.traceparent, v_dead.sent_at, v_dead.accepted_at,
            v_redriven_at);
    UPDATE users SET waiting = waiting + 1, next_seq = least(next_seq, v_dead.seq) WHERE id = v_user.id;
    RETURN v_user.id;
END $$;
