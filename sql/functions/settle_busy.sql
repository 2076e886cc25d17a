-- Settles what waits first and came while the user was answered: processed, without a turn, each in the session to which
-- it belongs. At most 50 of them in one call: a list may have 64 such users, and a statement has its time.
-- Returns whether nothing of it is first any more; NULL: another holds the user's row.
CREATE OR REPLACE FUNCTION settle_busy(p_user_id uuid, p_fence bigint, p_waits boolean) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_user users := lock_user(p_user_id, p_waits);
    v_message inbox;
    v_session_id uuid;
BEGIN
    IF v_user.id IS NULL THEN
        RETURN NULL;
    END IF;
    FOR nr IN 1 .. 50 LOOP
        IF is_fenced(v_user.fence, p_fence) OR v_user.paused_at IS NOT NULL THEN
            RETURN true;
        END IF;
        SELECT * INTO v_message FROM inbox
         WHERE user_id = v_user.id AND seq >= v_user.next_seq ORDER BY seq LIMIT 1;
        IF v_message.is_busy IS NOT TRUE THEN
            RETURN true;
        END IF;
        v_session_id := coalesce(v_message.session_id, get_or_create_session(v_user.id, v_message.accepted_at));
        IF v_message.escalate_at IS NOT NULL THEN
            PERFORM escalate_as_noted(v_session_id, v_message.escalate_at);
        END IF;
        PERFORM settle_message(
            v_user, v_message, jsonb_build_object('session_id', v_session_id, 'fence', p_fence), 'processed', '{}');
        SELECT * INTO v_user FROM users WHERE id = v_user.id;
    END LOOP;
    RETURN false;
END $$;
