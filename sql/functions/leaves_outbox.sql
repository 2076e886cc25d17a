-- Takes a reply out of the outbox, if it is there in one of p_states; how many requests it had stays known. The caller holds
-- the user's out lane.
-- Returns the state in which it was, also of one that was out before; NULL: it is there in another.
CREATE OR REPLACE FUNCTION leaves_outbox(p_reply messages, p_states text[]) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_row outbox;
BEGIN
    SELECT * INTO v_row FROM outbox
     WHERE user_id = p_reply.user_id AND turn_seq = p_reply.turn_seq AND ordinal = p_reply.ordinal;
    IF NOT FOUND THEN
        RETURN p_reply.state;
    ELSIF v_row.state <> ALL(p_states) THEN
        RETURN NULL;
    END IF;
    DELETE FROM outbox
     WHERE user_id = p_reply.user_id AND turn_seq = p_reply.turn_seq AND ordinal = p_reply.ordinal;
    UPDATE messages SET send_attempts = v_row.requests WHERE id = p_reply.id;
    RETURN v_row.state;
END $$;
