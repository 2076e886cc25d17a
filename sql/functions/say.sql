-- Says something to a user from outside a turn: its pieces go into the outbox, behind what the last settled turn said.
--
-- p_item: {channel, user: an alias or an id, is_created: a user is made of an alias that nobody has, key, content_hash,
--          replies: as store_replies takes them, files: {id: bytes in base64} that they are sent with, traceparent,
--          now}. All but channel, user, key and replies may be missing.
-- They lie in the open session, if there is one, whoever has it; they open none, and keep none open. The route is the
-- user's newest.
-- Under a key something is said once: asked again, it answers what it did the first time. Its name has a blank, which
-- no id of a provider has.
-- Locks the user's row. Returns {outcome, user_id, session_id, ids, outbox: those that are to be sent, differs}.
-- outcome: said; duplicate (said before, perhaps other words: differs); opted_out; unknown (nobody has the alias or the
-- id); skipped (the user was merged with another meanwhile).
CREATE OR REPLACE FUNCTION say(p_item jsonb) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_channel text := p_item ->> 'channel';
    v_name text := 'say ' || (p_item ->> 'key');
    v_said json := said_before(v_channel, v_name, p_item);
    v_user_id uuid;
    v_user users;
    v_at timestamptz := coalesce((p_item ->> 'now')::timestamptz, clock_timestamp());
    v_turn_seq bigint;
    v_ordinal integer;
BEGIN
    IF v_said IS NOT NULL THEN
        RETURN v_said;
    END IF;
    v_user_id := user_to_say_to(p_item || jsonb_build_object('external_id', v_name));
    v_user := lock_user(v_user_id);
    IF v_user.id IS NULL THEN
        RETURN json_build_object('outcome', 'unknown');
    ELSIF v_user.merged_into IS NOT NULL THEN
        RETURN json_build_object('outcome', 'skipped');
    ELSIF v_user.opted_out_at IS NOT NULL THEN
        RETURN json_build_object('outcome', 'opted_out', 'user_id', v_user.id);
    END IF;

    v_turn_seq := settled_before(v_user);
    INSERT INTO accepted_deliveries (channel, external_id, user_id, message_id, seq, accepted_at, content_hash)
    VALUES (v_channel, v_name, v_user.id, new_id(), v_turn_seq, v_at, (p_item ->> 'content_hash')::bigint)
        ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN -- it was said while we waited for the lock
        RETURN said_before(v_channel, v_name, p_item);
    END IF;
    SELECT coalesce(max(ordinal), 0) INTO v_ordinal FROM messages WHERE user_id = v_user.id AND turn_seq = v_turn_seq;
    INSERT INTO reply_files (id, user_id, turn_seq, data)
    SELECT id::uuid, v_user.id, v_turn_seq, decode(data, 'base64')
      FROM jsonb_each_text(coalesce(p_item -> 'files', '{}')) AS f (id, data);
    PERFORM store_replies(
        v_user.id, v_channel, open_session_at(v_user, v_at), v_turn_seq, v_ordinal, newest_route(v_user.id), v_at,
        p_item -> 'replies', p_external_id => v_name, p_traceparent => p_item ->> 'traceparent');
    RETURN said_before(v_channel, v_name, p_item)::jsonb || '{"outcome": "said"}';
END $$;
