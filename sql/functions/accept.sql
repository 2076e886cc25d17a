-- Takes a batch of deliveries of one channel into their users' orders.
--
-- p_messages: [{user_id, sender, external_id, text, button, attachments, sent_at}, …]
-- Locks the users in id order (two batches never wait for each other in a circle), then looks for duplicates, then
-- numbers what is new. A number is given under the lock, so the order of numbers is the order of commits.
-- accepted_at never runs backwards for a user. Raises OL429, and stores nothing, when a user would have more than
-- p_backlog_max waiting messages.
CREATE OR REPLACE FUNCTION accept(
    p_channel text, p_messages jsonb, p_backlog_max integer, p_now timestamptz DEFAULT NULL)
RETURNS TABLE (message_id uuid, user_id uuid, seq bigint, duplicate boolean, is_waiting boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_delivery jsonb;
    v_sender record;
    v_user users;
BEGIN
    FOR v_sender IN
        SELECT DISTINCT ON (1) (d ->> 'user_id')::uuid AS id, d ->> 'sender' AS name
          FROM jsonb_array_elements(p_messages) d ORDER BY 1
    LOOP
        PERFORM 1 FROM users WHERE id = v_sender.id FOR UPDATE;
        IF NOT FOUND THEN
            INSERT INTO users (id, channel, sender) VALUES (v_sender.id, p_channel, v_sender.name)
            ON CONFLICT DO NOTHING;
            PERFORM 1 FROM users WHERE id = v_sender.id FOR UPDATE;
        END IF;
    END LOOP;

    FOR v_delivery IN SELECT d FROM jsonb_array_elements(p_messages) d LOOP
        user_id := (v_delivery ->> 'user_id')::uuid;
        SELECT m.id, m.seq, true, m.state = 'received' INTO message_id, seq, duplicate, is_waiting
          FROM messages m
         WHERE m.user_id = accept.user_id AND m.external_id = v_delivery ->> 'external_id' AND m.direction = 'in';
        IF NOT FOUND THEN
            UPDATE users u
               SET last_seq = u.last_seq + 1,
                   waiting = u.waiting + 1,
                   last_accepted_at = greatest(coalesce(p_now, clock_timestamp()), u.last_accepted_at)
             WHERE u.id = accept.user_id
            RETURNING * INTO v_user;
            IF v_user.waiting > p_backlog_max THEN
                RAISE EXCEPTION 'user % has % waiting messages', user_id, v_user.waiting - 1
                    USING ERRCODE = 'OL429';
            END IF;
            INSERT INTO messages (user_id, direction, seq, turn_seq, state, channel, external_id,
                                  text, button, attachments, sent_at, accepted_at)
            VALUES (user_id, 'in', v_user.last_seq, v_user.last_seq, 'received', p_channel,
                    v_delivery ->> 'external_id', coalesce(v_delivery ->> 'text', ''), v_delivery ->> 'button',
                    coalesce(v_delivery -> 'attachments', '[]'), (v_delivery ->> 'sent_at')::timestamptz,
                    v_user.last_accepted_at)
            RETURNING id INTO message_id;
            seq := v_user.last_seq;
            duplicate := false;
            is_waiting := true;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
