-- Decides when the next working day begins after p_after: the first day_start instant that is later.
-- Starts a day early and looks at five, since a zone that crosses the date line skips a day or shows one twice.
CREATE OR REPLACE FUNCTION next_day_start(p_after timestamptz, p_day_start time, p_timezone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_date date := (p_after AT TIME ZONE p_timezone)::date - 1;
    v_instant timestamptz;
BEGIN
    FOR v_days_on IN 0..4 LOOP
        v_instant := day_start_instant(v_date + v_days_on, p_day_start, p_timezone);
        EXIT WHEN v_instant > p_after;
    END LOOP;
    RETURN v_instant;
END $$;
