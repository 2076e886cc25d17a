-- Makes of a delivery's id what is kept of it when its user is forgotten; of one that is that already, itself.
CREATE OR REPLACE FUNCTION forgotten_id(p_external_id text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_external_id LIKE 'sha256:%' THEN p_external_id
                ELSE 'sha256:' || encode(sha256(convert_to(p_external_id, 'UTF8')), 'hex') END
$$;
