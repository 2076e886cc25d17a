-- Takes deliveries into their users' orders: a list in, a list of answers out, in the same order.
--
-- p_deliveries: see accept_one. Each item is an island: what is refused of one fails no other. After an item that was
-- skipped or refused no later item of the same user is accepted, so that order holds.
-- p_waits: whether to wait for a row that another transaction holds; in a list of several nothing should.
CREATE OR REPLACE FUNCTION accept(p_deliveries jsonb, p_waits boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_answer json;
    v_answers json[] := '{}';
    v_blocked uuid[] := '{}';
BEGIN
    FOR nr IN 0 .. jsonb_array_length(p_deliveries) - 1 LOOP
        BEGIN
            v_answer := accept_one(p_deliveries -> nr, p_waits, v_blocked);
        EXCEPTION WHEN OTHERS THEN
            v_answer := json_build_object('outcome', 'refused', 'sqlstate', SQLSTATE);
        END;
        IF v_answer ->> 'outcome' NOT IN ('accepted', 'duplicate') AND v_answer ->> 'user_id' IS NOT NULL THEN
            v_blocked := v_blocked || (v_answer ->> 'user_id')::uuid;
        END IF;
        v_answers := v_answers || v_answer;
    END LOOP;
    RETURN to_json(v_answers);
END $$;
