-- Takes a reply out of the outbox, if it is there in one of p_states. The caller holds the user's out lane.
-- Returns the state in which it was, also of one that was out before; NULL: it is there in another.
CREATE OR REPLACE FUNCTION leaves_outbox(p_reply messages, p_states text[]) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_state text;
BEGIN
    SELECT state INTO v_state FROM outbox
     WHERE user_id = p_reply.user_id AND turn_seq = p_reply.turn_seq AND ordinal = p_reply.ordinal;
    IF NOT FOUND THEN
        RETURN p_reply.state;
    ELSIF v_state <> ALL(p_states) THEN
        RETURN NULL;
    END IF;
    DELETE FROM outbox
     WHERE user_id = p_reply.user_id AND turn_seq = p_reply.turn_seq AND ordinal = p_reply.ordinal;
    RETURN v_state;
END $$;
