-- Hands out the next reply of each leased out lane: a list in, a list of answers out, in the same order.
--
-- p_leases: see begin_send. Each item is an island: what is refused of one fails no other.
-- p_waits: whether to wait for what another transaction holds; in a list of several nothing should.
CREATE OR REPLACE FUNCTION begin_sends(p_leases jsonb, p_waits boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_answer json;
    v_answers json[] := '{}';
BEGIN
    FOR nr IN 0 .. jsonb_array_length(p_leases) - 1 LOOP
        BEGIN
            v_answer := begin_send(p_leases -> nr, p_waits);
        EXCEPTION
        WHEN lock_not_available OR deadlock_detected THEN
            v_answer := json_build_object('user_id', p_leases -> nr -> 'user_id', 'outcome', 'skipped');
        WHEN OTHERS THEN
            v_answer := json_build_object('outcome', 'refused', 'sqlstate', SQLSTATE);
        END;
        v_answers := v_answers || v_answer;
    END LOOP;
    RETURN to_json(v_answers);
END $$;
