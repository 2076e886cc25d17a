-- Gives a user's conversation to the human of another, who is merged into this one: escalates the session in use, or opens
-- one and escalates that. When it cannot be open yet, because messages of an earlier one wait, a line without words waits
-- behind them, as an echo does, and escalates the session as its turn begins. The caller holds the user's row lock.
CREATE OR REPLACE FUNCTION give_human(p_user users, p_from_id uuid, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_accepted accepted_deliveries;
BEGIN
    IF escalate_session(p_user.id, p_at) IS NOT NULL OR hand_over(p_user, p_at) IS NOT NULL THEN
        RETURN;
    END IF;
    UPDATE users SET last_seq = last_seq + 1, waiting = waiting + 1 WHERE id = p_user.id
    RETURNING last_seq INTO v_accepted.seq;
    v_accepted.channel := p_user.channel;
    v_accepted.external_id := 'merged:' || p_from_id;
    v_accepted.user_id := p_user.id;
    v_accepted.message_id := new_id();
    v_accepted.accepted_at := p_at;
    PERFORM keep_waiting('{"kind": "echo"}', v_accepted, false);
END $$;
