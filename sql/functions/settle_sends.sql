-- Stores what came of requests to providers, and begins the next of each lane that goes on: a list in, a list of answers
-- out, in the same order.
--
-- p_sends: see settle_send. Each item is an island: what is refused of one fails no other.
-- p_waits: whether to wait for what another transaction holds; in a list of several nothing should.
CREATE OR REPLACE FUNCTION settle_sends(p_sends jsonb, p_waits boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_answer json;
    v_answers json[] := '{}';
BEGIN
    FOR nr IN 0 .. jsonb_array_length(p_sends) - 1 LOOP
        BEGIN
            v_answer := settle_send(p_sends -> nr, p_waits);
        EXCEPTION
        WHEN lock_not_available OR deadlock_detected THEN
            v_answer := json_build_object('user_id', p_sends -> nr -> 'user_id', 'outcome', 'skipped');
        WHEN OTHERS THEN
            v_answer := json_build_object('outcome', 'refused', 'sqlstate', SQLSTATE);
        END;
        v_answers := v_answers || v_answer;
    END LOOP;
    RETURN to_json(v_answers);
END $$;
