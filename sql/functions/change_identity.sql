-- Carries out that a person is called differently from now on, and perhaps is somebody else. The names that it adds are
-- added already. The caller holds the user's row lock.
-- Returns the identifier that the provider prefers from now on.
CREATE OR REPLACE FUNCTION change_identity(p_user users, p_item jsonb, p_at timestamptz) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_drops text[] := ARRAY(SELECT jsonb_array_elements_text(p_item -> 'drops'));
BEGIN
    UPDATE users SET former_names = ARRAY(SELECT n FROM unnest(former_names) n WHERE NOT p_item -> 'adds' ? n)
     WHERE id = p_user.id AND former_names && ARRAY(SELECT jsonb_array_elements_text(p_item -> 'adds'));
    PERFORM drop_names(p_user.channel, p_user.id, v_drops);
    IF (p_item ->> 'has_new_owner')::boolean THEN
        PERFORM change_owner(p_user, p_at);
    END IF;
    IF p_user.sender <> ALL(v_drops) THEN
        RETURN p_user.sender;
    END IF;
    RETURN coalesce(
        (SELECT name FROM jsonb_array_elements_text(coalesce(p_item -> 'adds', '[]') || (p_item -> 'senders'))
                          WITH ORDINALITY AS n (name, nr)
          WHERE name <> ALL(v_drops) ORDER BY nr LIMIT 1),
        p_user.sender);
END $$;
