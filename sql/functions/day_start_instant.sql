-- Decides at which instant the local clock of a time zone shows p_day_start on p_date.
-- Shown twice (the clock goes back): the second time, standard time, which is what AT TIME ZONE answers.
-- Never shown (the clock jumps over it): the instant of the jump, found by halving to the second.
CREATE OR REPLACE FUNCTION day_start_instant(p_date date, p_day_start time, p_timezone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_wanted timestamp := p_date + p_day_start;
    v_after timestamptz := v_wanted AT TIME ZONE p_timezone;
    v_shown timestamp := v_after AT TIME ZONE p_timezone;
    v_before timestamptz := v_after - (v_shown - v_wanted);
    v_middle timestamptz;
BEGIN
    WHILE v_shown <> v_wanted AND v_after - v_before > interval '1 second' LOOP
        v_middle := date_trunc('second', v_before + (v_after - v_before) / 2);
        IF v_middle AT TIME ZONE p_timezone > v_wanted THEN
            v_after := v_middle;
        ELSE
            v_before := v_middle;
        END IF;
    END LOOP;
    RETURN v_after;
END $$;
