-- Forgets one ended session of a channel, or p_most lines of it: see forget_sessions. Locks the user's row and the out lane,
-- if nobody else has them, and the lines, so that nothing is to be sent again meanwhile. What is still to be sent keeps the
-- session, also if it was said after the session's end: a reply without its line would hold up all later ones.
-- The oldest turns go first, of each the replies, the last first, then their message with its calls; last the session's
-- row. So what is left is whole turns, but for the oldest: that may lack replies, and none its message.
-- Returns how many lines went, and whether nothing is left.
CREATE OR REPLACE FUNCTION forget_session(
    p_session conversation_sessions, p_channel text, p_before timestamptz, p_most integer,
    OUT lines integer, OUT is_gone boolean)
LANGUAGE plpgsql AS $$
DECLARE
    v_user users;
    v_last bigint;
    v_ids uuid[];
BEGIN
    lines := 0;
    is_gone := false;
    IF NOT EXISTS (SELECT FROM users WHERE id = p_session.user_id AND channel = p_channel) THEN
        RETURN;
    END IF;
    v_user := lock_user(p_session.user_id, false);
    IF v_user.id IS NULL
       OR (lock_out_lane(v_user.id, false)).user_id IS NULL AND EXISTS (
               SELECT FROM out_lanes WHERE user_id = v_user.id)
       OR EXISTS (SELECT FROM inbox WHERE user_id = v_user.id AND session_id = p_session.id) THEN
        RETURN;
    END IF;
    SELECT coalesce(max(turn_seq), 0) INTO v_last FROM messages WHERE session_id = p_session.id;
    v_ids := ARRAY(
        SELECT id FROM messages
         WHERE user_id = v_user.id AND turn_seq <= v_last
           AND (session_id = p_session.id OR session_id IS NULL AND accepted_at < p_before)
         ORDER BY turn_seq, ordinal DESC LIMIT p_most
           FOR UPDATE);
    IF EXISTS (SELECT FROM outbox o JOIN messages m ON m.id = o.id
                WHERE o.user_id = v_user.id AND o.turn_seq <= v_last
                  AND (m.session_id = p_session.id OR m.session_id IS NULL AND m.accepted_at < p_before)) THEN
        RETURN;
    END IF;
    UPDATE accepted_deliveries d SET is_alone = true FROM messages m
     WHERE m.id = ANY(v_ids) AND d.channel = m.channel AND d.external_id = m.external_id;
    PERFORM forget_lines(v_ids);
    lines := cardinality(v_ids);
    IF lines < p_most THEN
        DELETE FROM tool_calls WHERE session_id = p_session.id;
        DELETE FROM conversation_sessions WHERE id = p_session.id;
        is_gone := true;
    END IF;
END $$;
