-- Whether a turn under a fence may not write: a later lease has written. A number that no lease can have had is no
-- fence: it would lock the user out for ever, so one that is stored counts for nothing (the next write replaces it), and
-- one that asks is refused. The counter begins at the clock in µs (lease.lua), and is bounded in prelude.lua by ten years
-- more; here by eleven, since clocks differ.
-- p_written: the newest that has written; p_fence: the turn's.
CREATE OR REPLACE FUNCTION is_fenced(p_written bigint, p_fence bigint) RETURNS boolean
LANGUAGE sql STABLE AS $$
    -- One expression, without FROM and of no volatile function: such a one becomes part of the statement that asks.
    SELECT CASE WHEN p_fence > extract(epoch FROM now()) * 1000000 + 346896000000000 THEN true
                ELSE p_written > p_fence AND p_written <= extract(epoch FROM now()) * 1000000 + 346896000000000 END
$$;
