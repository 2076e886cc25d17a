-- Names the identifiers that decide whose a delivery is: the conversation alone, or all senders.
CREATE OR REPLACE FUNCTION names_of(p_delivery jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_delivery ->> 'conversation' IS NOT NULL THEN ARRAY[p_delivery ->> 'conversation']
                ELSE ARRAY(SELECT jsonb_array_elements_text(p_delivery -> 'senders')) END
$$;
