-- Names the identifiers that decide whose an item of accept is: the conversation alone, or all senders, with those that
-- an identity change adds.
CREATE OR REPLACE FUNCTION names_of(p_item jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_item ->> 'conversation' IS NOT NULL THEN ARRAY[p_item ->> 'conversation']
                ELSE ARRAY(SELECT jsonb_array_elements_text((p_item -> 'senders') || coalesce(p_item -> 'adds', '[]')))
           END
$$;
