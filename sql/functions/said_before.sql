-- Answers what was said under a key: see say; no ids where retention has taken that. NULL: nothing was said.
CREATE OR REPLACE FUNCTION said_before(p_channel text, p_name text, p_item jsonb) RETURNS json
LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'outcome', 'duplicate', 'user_id', d.user_id, 'differs', d.content_hash <> (p_item ->> 'content_hash')::bigint,
        'session_id', min(m.session_id::text),
        'ids', coalesce(array_agg(m.id ORDER BY m.ordinal) FILTER (WHERE m.id IS NOT NULL), '{}'),
        'outbox', coalesce(array_agg(m.id ORDER BY m.ordinal) FILTER (WHERE o.id IS NOT NULL), '{}'))
      FROM accepted_deliveries d
      LEFT JOIN messages m
        ON m.user_id = d.user_id AND m.turn_seq = d.seq AND m.ordinal > 0 AND m.external_id = p_name
      LEFT JOIN outbox o ON o.user_id = m.user_id AND o.turn_seq = m.turn_seq AND o.ordinal = m.ordinal
     WHERE d.channel = p_channel AND d.external_id = p_name
     GROUP BY d.user_id, d.content_hash;
$$;
