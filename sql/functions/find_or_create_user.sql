-- Decides whose an item of accept is. Makes a user for names that nobody has; adds none to one who is there already.
--
-- A conversation (a group, a thread) identifies the user alone; without one, all senders do, and what an identity change
-- adds. Names that are known cost no lock. When one is missing, each name of the item is locked first, in order, and
-- looked up again; only then is a user made: two items that name one person for the first time make one user. An item
-- that was accepted before is its user's, whatever its names mean by now, and also if that user is forgotten.
-- Names of several users: one who had a name that is another's now wins (the item is late), else the one with the open
-- session, else the older; nothing is merged.
-- Returns the user, or NULL when another transaction holds one of the names and p_waits is false; others: the users that
-- the remaining names mean, unless the item is late; missing: names that are to be added to the user, under the user's
-- lock: none that were dropped, unless they are added anew.
CREATE OR REPLACE FUNCTION find_or_create_user(
    p_channel text, p_item jsonb, p_waits boolean, OUT user_id uuid, OUT others uuid[], OUT missing text[])
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_names text[] := ARRAY[coalesce(p_item ->> 'conversation', p_item -> 'senders' ->> 0)];
    v_name text;
    v_known integer;
    v_users uuid[];
    v_is_locked boolean := false;
    v_is_late boolean;
BEGIN
    IF p_item ->> 'conversation' IS NULL AND (jsonb_array_length(p_item -> 'senders') > 1 OR p_item ? 'adds') THEN
        SELECT array_agg(DISTINCT n ORDER BY n) INTO v_names FROM unnest(names_of(p_item)) n;
    END IF;
    IF cardinality(v_names) = 1 THEN -- and known, as most are
        SELECT a.user_id INTO user_id FROM user_aliases a WHERE a.channel = p_channel AND a.alias = v_names[1];
        IF FOUND THEN
            RETURN;
        END IF;
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
        SELECT d.user_id INTO user_id FROM accepted_deliveries d
         WHERE d.channel = p_channel AND d.external_id IN (
               p_item ->> 'external_id', forgotten_id(p_item ->> 'external_id'));
        IF FOUND THEN
            RETURN;
        END IF;
    END LOOP;

    IF cardinality(v_users) > 1 THEN
        SELECT u.id, u.former_names && v_names INTO user_id, v_is_late
          FROM users u
          LEFT JOIN conversation_sessions s ON s.user_id = u.id AND s.status <> 'ended'
         WHERE u.id = ANY(v_users) ORDER BY u.former_names && v_names DESC, s.id IS NULL, u.created_at, u.id LIMIT 1;
        others := CASE WHEN NOT v_is_late THEN array_remove(v_users, user_id) END;
    ELSE
        user_id := v_users[1];
    END IF;
    IF v_is_locked THEN
        SELECT array_agg(n) INTO missing FROM unnest(v_names) n
         WHERE NOT coalesce(p_item -> 'drops' ? n, false)
           AND NOT EXISTS (SELECT FROM user_aliases a WHERE a.channel = p_channel AND a.alias = n)
           AND NOT EXISTS (SELECT FROM users u WHERE u.id = user_id AND n = ANY(u.former_names)
                               AND NOT coalesce(p_item -> 'adds' ? n, false));
    END IF;
    IF user_id IS NULL THEN
        missing := coalesce(missing, v_names);
        INSERT INTO users (channel, sender)
        VALUES (p_channel, coalesce(p_item ->> 'conversation', p_item -> 'senders' ->> 0)) RETURNING id INTO user_id;
        PERFORM add_names(p_channel, user_id, missing);
        missing := NULL;
    END IF;
END $$;
