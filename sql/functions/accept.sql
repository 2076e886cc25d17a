-- Takes messages, events and echoes into their users' orders: a list in, a list of answers out, in the same order.
--
-- p_items: see accept_one. Each item is an island: what is refused of one fails no other. After an item that was
-- skipped, or whose user has a full backlog, no later item of the same user is accepted, so that order holds. Of a user
-- who is not known yet that is one under the same name; so it is under a name that the item would have added.
-- p_waits: whether to wait for a row that another transaction holds; in a list of several nothing should.
-- Each statement is planned once a connection: its first five plans would be other ones, at twice the cost of a call.
CREATE OR REPLACE FUNCTION accept(p_items jsonb, p_waits boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_answer json;
    v_answers json[] := '{}';
    v_blocked uuid[] := '{}';
    v_blocked_names text[] := '{}';
BEGIN
    FOR nr IN 0 .. jsonb_array_length(p_items) - 1 LOOP
        BEGIN
            IF v_blocked_names <> '{}' AND v_blocked_names && names_of(p_items -> nr) THEN
                v_answer := json_build_object('outcome', 'skipped');
            ELSE
                v_answer := accept_one(p_items -> nr, p_waits, v_blocked);
            END IF;
        EXCEPTION
        WHEN lock_not_available OR deadlock_detected THEN
            v_answer := json_build_object('outcome', 'skipped');
        WHEN OTHERS THEN
            v_answer := json_build_object('outcome', 'refused', 'sqlstate', SQLSTATE);
        END;
        IF v_answer ->> 'user_id' IS NULL AND v_answer ->> 'outcome' = 'skipped' THEN
            v_blocked_names := v_blocked_names || names_of(p_items -> nr);
        ELSIF v_answer ->> 'outcome' IN ('skipped', 'full') THEN
            v_blocked := v_blocked || (v_answer ->> 'user_id')::uuid;
            v_blocked_names := v_blocked_names || ARRAY(SELECT json_array_elements_text(v_answer -> 'missing'));
        END IF;
        v_answers := v_answers || v_answer;
    END LOOP;
    RETURN to_json(v_answers);
END $$;
