-- Notes what providers say became of replies: a list in, a list of answers out, in the same order.
--
-- p_statuses: see note_status; several of one reply may be in any order, and come again. Nothing waits for another
-- transaction unless p_waits, which is for one status alone; so two lists never wait for each other.
CREATE OR REPLACE FUNCTION note_statuses(p_statuses jsonb, p_waits boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_answers json[] := '{}';
BEGIN
    FOR nr IN 0 .. jsonb_array_length(p_statuses) - 1 LOOP
        v_answers := v_answers || note_status(p_statuses -> nr, p_waits);
    END LOOP;
    RETURN to_json(v_answers);
END $$;
