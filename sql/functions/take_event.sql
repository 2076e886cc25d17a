-- Carries out what an event or an echo means, and keeps its line where it makes no turn. The caller holds the user's row
-- lock, and has numbered it.
--
-- p_waits: whether it is to make a turn. p_sender: the identifier that it prefers.
-- Returns whether it waits: an echo does, too, while the session that it hands over is not open yet; and the identifier
-- that the provider prefers from now on.
CREATE OR REPLACE FUNCTION take_event(
    p_user users, p_item jsonb, p_accepted accepted_deliveries, p_waits boolean, p_has_payload boolean, p_sender text,
    OUT is_waiting boolean, OUT sender text)
LANGUAGE plpgsql AS $$
DECLARE
    v_at timestamptz := p_accepted.accepted_at;
    v_session_id uuid;
BEGIN
    is_waiting := p_waits;
    sender := p_sender;
    IF p_item ->> 'kind' = 'echo' AND p_item ->> 'on_echo' IS DISTINCT FROM 'note' THEN
        v_session_id := hand_over(p_user, v_at);
        is_waiting := v_session_id IS NULL;
    END IF;
    CASE p_item ->> 'event'
    WHEN 'identity_changed' THEN
        sender := change_identity(p_user, p_item, v_at);
    WHEN 'opted_out' THEN
        UPDATE users SET opted_out_at = coalesce(opted_out_at, v_at) WHERE id = p_user.id;
    WHEN 'opted_in' THEN
        UPDATE users SET opted_out_at = NULL WHERE id = p_user.id;
    WHEN 'edited', 'deleted' THEN
        PERFORM change_line(p_user, p_item, v_at);
    ELSE
    END CASE;
    IF NOT is_waiting THEN
        PERFORM keep_line(p_item, p_accepted, coalesce(v_session_id, open_session_at(p_user, v_at)), p_has_payload);
    END IF;
END $$;
