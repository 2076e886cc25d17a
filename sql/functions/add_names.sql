-- Adds names to a user. The caller holds the user's row lock, and the names'.
CREATE OR REPLACE FUNCTION add_names(p_channel text, p_user_id uuid, p_names text[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO user_aliases (channel, alias, user_id) SELECT p_channel, name, p_user_id FROM unnest(p_names) name
    ON CONFLICT DO NOTHING;
$$;
