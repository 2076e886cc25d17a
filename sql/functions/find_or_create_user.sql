-- Decides whose delivery this is, and remembers every identifier that it names.
--
-- A conversation (a group, a thread) identifies the user alone; without one, all senders do. Names that are known cost
-- no lock. When one is missing, each name of the delivery is locked first, in order, and looked up again; only then is
-- a user made or an alias added: two deliveries that name one person for the first time make one user.
-- Names of several users: the one with the open session wins, else the older; nothing is merged.
-- Returns the user, or NULL when another transaction holds one of the names and p_waits is false.
CREATE OR REPLACE FUNCTION find_or_create_user(
    p_channel text, p_delivery jsonb, p_waits boolean, OUT user_id uuid, OUT has_conflict boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_names text[] := ARRAY[coalesce(p_delivery ->> 'conversation', p_delivery -> 'senders' ->> 0)];
    v_name text;
    v_known integer;
    v_users uuid[];
    v_is_locked boolean := false;
BEGIN
    IF p_delivery ->> 'conversation' IS NULL AND jsonb_array_length(p_delivery -> 'senders') > 1 THEN
        SELECT array_agg(DISTINCT s ORDER BY s) INTO v_names FROM jsonb_array_elements_text(p_delivery -> 'senders') s;
    END IF;
    LOOP
        SELECT count(*), array_agg(DISTINCT a.user_id) INTO v_known, v_users
          FROM user_aliases a WHERE a.channel = p_channel AND a.alias = ANY(v_names);
        EXIT WHEN v_known = cardinality(v_names) OR v_is_locked;
        FOREACH v_name IN ARRAY v_names LOOP
            IF p_waits THEN
                PERFORM pg_advisory_xact_lock(hashtextextended(p_channel || ':' || v_name, 0));
            ELSIF NOT pg_try_advisory_xact_lock(hashtextextended(p_channel || ':' || v_name, 0)) THEN
                RETURN;
            END IF;
        END LOOP;
        v_is_locked := true;
    END LOOP;

    has_conflict := cardinality(v_users) > 1;
    IF has_conflict THEN
        SELECT u.id INTO user_id
          FROM users u
          LEFT JOIN conversation_sessions s ON s.user_id = u.id AND s.status <> 'ended'
         WHERE u.id = ANY(v_users) ORDER BY s.id IS NULL, u.created_at, u.id LIMIT 1;
    ELSIF v_known > 0 THEN
        user_id := v_users[1];
    ELSE
        INSERT INTO users (channel, sender)
        VALUES (p_channel, coalesce(p_delivery ->> 'conversation', p_delivery -> 'senders' ->> 0))
        RETURNING id INTO user_id;
    END IF;
    IF v_known < cardinality(v_names) THEN
        INSERT INTO user_aliases (channel, alias, user_id)
        SELECT p_channel, name, find_or_create_user.user_id FROM unnest(v_names) name
        ON CONFLICT DO NOTHING;
    END IF;
END $$;
