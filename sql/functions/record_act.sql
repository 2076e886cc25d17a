-- Writes down what somebody has done, once however often it is asked: p_id names the asking.
CREATE OR REPLACE FUNCTION record_act(p_id uuid, p_who text, p_act text, p_subject text, p_detail jsonb) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO audit (id, who, act, subject, detail) VALUES (p_id, p_who, p_act, p_subject, p_detail)
    ON CONFLICT DO NOTHING
$$;
