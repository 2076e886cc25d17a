-- Whether a webhook's body shows one of the names. p_spellings: the ways in which they may be written, each a list of parts,
-- and each part a list of its spellings: [[[…], …], …]. A way is shown when the body has a spelling of each of its parts.
CREATE OR REPLACE FUNCTION shows_name(p_body bytea, p_spellings jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT EXISTS (
        SELECT FROM jsonb_array_elements(p_spellings) way WHERE NOT EXISTS (
            SELECT FROM jsonb_array_elements(way) part WHERE NOT EXISTS (
                SELECT FROM jsonb_array_elements_text(part) spelling
                 WHERE position(convert_to(spelling, 'UTF8') IN p_body) > 0)));
$$;
