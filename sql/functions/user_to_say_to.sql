-- Finds whom something is to be said to: see say; external_id: its name. An id that looks like ours is never taken for an alias.
-- NULL: there is nobody, and nobody is to be made.
CREATE OR REPLACE FUNCTION user_to_say_to(p_item jsonb) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_channel text := p_item ->> 'channel';
    v_name text := p_item ->> 'user';
    v_user_id uuid;
BEGIN
    IF v_name ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        SELECT coalesce(merged_into, id) INTO v_user_id FROM users WHERE id = v_name::uuid AND channel = v_channel;
    ELSE
        SELECT user_id INTO v_user_id FROM user_aliases WHERE channel = v_channel AND alias = v_name;
        IF NOT FOUND AND (p_item ->> 'is_created')::boolean THEN
            v_user_id := (find_or_create_user(v_channel, jsonb_build_object(
                'senders', jsonb_build_array(v_name), 'external_id', p_item ->> 'external_id'), true)).user_id;
        END IF;
    END IF;
    RETURN v_user_id;
END $$;
