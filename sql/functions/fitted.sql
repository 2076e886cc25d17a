-- Decides where a time goes that may be ahead of the clock: see fit_time.
CREATE OR REPLACE FUNCTION fitted(p_at timestamptz, p_now timestamptz, p_by interval, p_floor timestamptz)
RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_at > p_now THEN least(p_now, greatest(p_floor, p_at - p_by)) ELSE p_at END;
$$;
