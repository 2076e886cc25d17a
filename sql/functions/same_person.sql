-- Names all users that are one person by now: the user, the one it was merged into, and all that were merged into that.
CREATE OR REPLACE FUNCTION same_person(p_user_id uuid) RETURNS uuid[]
LANGUAGE sql STABLE AS $$
    SELECT array_agg(u.id ORDER BY u.id)
      FROM users known, users u
     WHERE known.id = p_user_id AND coalesce(known.merged_into, known.id) IN (u.id, u.merged_into)
$$;
