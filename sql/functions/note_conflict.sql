-- Notes that one delivery named several users: onelane user show shows it of each, until they are merged.
CREATE OR REPLACE FUNCTION note_conflict(p_user_id uuid, p_others uuid[], p_at timestamptz) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO identity_conflicts (user_id, other_id, noted_at)
    SELECT pair.*, p_at FROM unnest(p_others) other, LATERAL (VALUES (p_user_id, other), (other, p_user_id)) pair
     ORDER BY 1, 2
    ON CONFLICT DO NOTHING;
$$;
