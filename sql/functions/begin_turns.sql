-- Hands out the next turn of each leased lane: a list in, a list of answers out, in the same order.
--
-- p_leases: see begin_turn. Each item is an island: what is refused of one fails no other.
-- p_waits: whether to wait for a row that another transaction holds; in a list of several nothing should.
-- Each statement is planned once a connection: its first five plans would be other ones, at twice the cost of a call.
CREATE OR REPLACE FUNCTION begin_turns(p_leases jsonb, p_waits boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_answer json;
    v_answers json[] := '{}';
BEGIN
    FOR nr IN 0 .. jsonb_array_length(p_leases) - 1 LOOP
        BEGIN
            v_answer := begin_turn(p_leases -> nr, p_waits);
        EXCEPTION WHEN OTHERS THEN
            v_answer := json_build_object('outcome', 'refused', 'sqlstate', SQLSTATE);
        END;
        v_answers := v_answers || v_answer;
    END LOOP;
    RETURN to_json(v_answers);
END $$;
