-- Stores what came of turns, and begins the next turn of each lane that goes on: a list in, a list of answers out, in
-- the same order.
--
-- p_turns: see settle_turn. Each item is an island: what is refused of one fails no other. Those of a list that are plain
-- are settled together first (settle_plain_turns); where one of them is refused, each by itself like the others.
-- p_waits: whether to wait for a row that another transaction holds; in a list of several nothing should.
-- Each statement is planned once a connection: its first five plans would be other ones, at twice the cost of a call.
CREATE OR REPLACE FUNCTION settle_turns(p_turns jsonb, p_waits boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_answers json[] := '{}';
BEGIN
    IF jsonb_array_length(p_turns) > 1 THEN
        BEGIN
            v_answers := settle_plain_turns(p_turns);
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'turns_not_settled_together' USING ERRCODE = 'OL001',
                DETAIL = jsonb_build_object('sqlstate', SQLSTATE);
        END;
    END IF;
    FOR nr IN 1 .. jsonb_array_length(p_turns) LOOP
        CONTINUE WHEN v_answers[nr] IS NOT NULL;
        BEGIN
            v_answers[nr] := settle_turn(p_turns -> (nr - 1), p_waits);
        EXCEPTION WHEN OTHERS THEN
            v_answers[nr] := json_build_object('outcome', 'refused', 'sqlstate', SQLSTATE);
        END;
    END LOOP;
    RETURN to_json(v_answers);
END $$;
