-- Finds the way back that the user's newest line has. Looks at the newest hundred: some providers give none at all.
CREATE OR REPLACE FUNCTION newest_route(p_user_id uuid) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT route FROM (
        (SELECT 1 AS place, seq, route FROM inbox WHERE user_id = p_user_id ORDER BY seq DESC LIMIT 100)
        UNION ALL
        (SELECT 2, turn_seq, route FROM messages WHERE user_id = p_user_id ORDER BY turn_seq DESC, ordinal DESC LIMIT 100)
    ) AS lines WHERE route IS NOT NULL ORDER BY place, seq DESC LIMIT 1;
$$;
