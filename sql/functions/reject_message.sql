-- Marks a message that came while its user was answered: it is settled in its order, without a turn. The first of a busy
-- spell is answered at once, from outside a turn, behind what the last settled turn said: p_replies, see store_replies.
-- A paused user waits for an operator: his messages wait, too. Nothing is said into a session that a human has, or will
-- have: what waits hands it over. The caller holds the user's row lock; p_user is the row before the message came.
-- Returns whether the message is marked.
CREATE OR REPLACE FUNCTION reject_message(
    p_user users, p_message accepted_deliveries, p_replies jsonb, p_traceparent text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_session_id uuid;
    v_turn_seq bigint;
    v_is_first boolean;
BEGIN
    IF p_user.waiting = 0 OR p_user.paused_at IS NOT NULL THEN
        RETURN false;
    END IF;
    v_session_id := open_session_at(p_user, p_message.accepted_at);
    IF EXISTS (SELECT FROM conversation_sessions WHERE id = v_session_id AND status = 'escalated') THEN
        RETURN false;
    END IF;
    v_is_first := NOT EXISTS (SELECT FROM inbox WHERE user_id = p_user.id AND seq >= p_user.next_seq AND is_busy);
    IF v_is_first AND EXISTS (
            SELECT FROM inbox WHERE user_id = p_user.id AND seq >= p_user.next_seq AND escalate_at IS NOT NULL) THEN
        RETURN false;
    END IF;
    UPDATE inbox SET is_busy = true WHERE user_id = p_user.id AND seq = p_message.seq;
    IF v_is_first AND p_user.opted_out_at IS NULL AND p_replies <> '[]' THEN
        v_turn_seq := settled_before(p_user);
        PERFORM store_replies(
            p_user.id, p_user.channel, v_session_id, v_turn_seq,
            (SELECT coalesce(max(ordinal), 0) FROM messages WHERE user_id = p_user.id AND turn_seq = v_turn_seq),
            newest_route(p_user.id), p_message.accepted_at, p_replies, p_external_id => 'busy reply',
            p_traceparent => p_traceparent);
    END IF;
    RETURN true;
END $$;
