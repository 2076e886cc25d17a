-- Hands out the next turn of each leased lane: a list in, a list of answers out, in the same order.
--
-- p_leases: see begin_turn. Each item is an island: what is refused of one fails no other.
-- p_waits: whether to wait for a row that another transaction holds; in a list of several nothing should.
CREATE OR REPLACE FUNCTION begin_turns(p_leases jsonb, p_waits boolean DEFAULT true) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_lease jsonb;
    v_answer jsonb;
    v_answers jsonb[] := '{}';
BEGIN
    FOR v_lease IN SELECT l FROM jsonb_array_elements(p_leases) l LOOP
        BEGIN
            v_answer := begin_turn(v_lease, p_waits);
        EXCEPTION WHEN OTHERS THEN
            v_answer := jsonb_build_object('outcome', 'refused', 'sqlstate', SQLSTATE);
        END;
        v_answers := v_answers || v_answer;
    END LOOP;
    RETURN to_jsonb(v_answers);
END $$;
