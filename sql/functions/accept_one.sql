-- Takes one item into its user's order.
--
-- p_item: {channel, senders: [preferred first, …], conversation, external_id, kind: message, event or echo, event, text,
--          button, closes, attachments, parts, raw, quoted, author, mentioned, repairs, route, traceparent, sent_at,
--          content_hash, backlog_max, on_echo: escalate or note, now; busy_replies: what is said to whom it comes from while
--          he is answered, as store_replies takes it; of the event identity_changed also adds, drops, has_new_owner}; all but
--          channel, senders and external_id optional.
-- Finds the user, locks the row, then looks for a duplicate, then numbers what is new. A number is given under the lock,
-- so the order of numbers is the order of commits. accepted_at never runs backwards for a user. Names may have moved to
-- another user between look and lock: then it looks again.
-- Messages wait in the inbox, and so do events where the bot has a function for them; every other line is terminal, and
-- never finds a backlog full.
-- Returns {outcome, user_id, message_id, seq, is_waiting, has_conflict, differs, missing, outbox: the user's replies that
-- are to be sent, where it was marked as come while he was answered}. outcome: accepted; duplicate; full
-- (the user has backlog_max waiting messages); skipped (somebody holds what it needs, or it is of a user in p_blocked).
-- has_conflict: the item's identifiers are those of several users. differs: the duplicate has other content.
-- missing: of what was not accepted, the names that it would have added to the user.
CREATE OR REPLACE FUNCTION accept_one(p_item jsonb, p_waits boolean, p_blocked uuid[]) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_channel text := p_item ->> 'channel';
    v_external_id text := p_item ->> 'external_id';
    v_kind text := coalesce(p_item ->> 'kind', 'message');
    v_is_waiting boolean := v_kind = 'message'
        OR v_kind = 'event' AND (policy_of(v_channel)).wants_events;
    v_content_hash bigint := (p_item ->> 'content_hash')::bigint;
    v_has_payload boolean := p_item ? 'raw' AND octet_length(p_item ->> 'raw') > 1024;
    v_known record;
    v_user users;
    v_accepted accepted_deliveries;
    v_sender text := coalesce(p_item ->> 'conversation', p_item -> 'senders' ->> 0);
    v_taken record;
    v_is_full boolean;
    v_is_busy boolean := false;
BEGIN
    v_known := find_or_create_user(v_channel, p_item, p_waits);
    FOR nr IN 1 .. 3 LOOP
        IF v_known.user_id IS NULL THEN
            RETURN json_build_object('outcome', 'skipped');
        END IF;
        v_user := lock_user(v_known.user_id, p_waits);
        IF v_user.id IS NULL THEN
            RETURN coalesce(forgotten_delivery(v_channel, v_external_id), json_build_object(
                'outcome', 'skipped', 'user_id', v_known.user_id, 'missing', coalesce(v_known.missing, '{}')));
        END IF;
        EXIT WHEN NOT v_user.names_moved;
        v_known := find_or_create_user(v_channel, p_item, p_waits);
        EXIT WHEN v_known.user_id = v_user.id;
        v_user := NULL;
    END LOOP;
    IF v_user.id IS NULL THEN
        RETURN json_build_object('outcome', 'skipped');
    END IF;

    v_is_full := v_is_waiting AND v_user.waiting >= coalesce((p_item ->> 'backlog_max')::integer, 2147483647);
    IF NOT v_is_full AND v_user.id <> ALL(p_blocked) THEN
        INSERT INTO accepted_deliveries (channel, external_id, user_id, message_id, seq, accepted_at, content_hash)
        VALUES (v_channel, v_external_id, v_user.id, new_id(), v_user.last_seq + 1,
                greatest(coalesce((p_item ->> 'now')::timestamptz, clock_timestamp()), v_user.last_accepted_at),
                v_content_hash)
        ON CONFLICT DO NOTHING
        RETURNING * INTO v_accepted;
    END IF;
    IF v_accepted.message_id IS NULL THEN
        SELECT * INTO v_accepted FROM accepted_deliveries WHERE channel = v_channel AND external_id = v_external_id;
        IF NOT FOUND THEN
            RETURN json_build_object(
                'outcome', CASE WHEN v_is_full THEN 'full' ELSE 'skipped' END, 'user_id', v_user.id,
                'missing', coalesce(v_known.missing, '{}'));
        END IF;
        RETURN json_build_object(
            'outcome', 'duplicate', 'user_id', v_accepted.user_id, 'message_id', v_accepted.message_id,
            'seq', v_accepted.seq, 'has_conflict', v_known.others IS NOT NULL,
            'differs', coalesce(v_accepted.content_hash <> v_content_hash, false), 'is_waiting', EXISTS (
                SELECT FROM inbox WHERE user_id = v_accepted.user_id AND seq = v_accepted.seq));
    END IF;

    IF v_known.missing IS NOT NULL THEN
        PERFORM add_names(v_channel, v_user.id, v_known.missing);
    END IF;
    IF v_known.others IS NOT NULL THEN
        PERFORM note_conflict(v_user.id, v_known.others, v_accepted.accepted_at);
    END IF;
    IF v_has_payload THEN
        INSERT INTO payloads (message_id, user_id, raw) VALUES (v_accepted.message_id, v_user.id, p_item -> 'raw');
        p_item := p_item - 'raw';
    END IF;
    IF v_kind <> 'message' THEN
        v_taken := take_event(v_user, p_item, v_accepted, v_is_waiting, v_has_payload, v_sender);
        v_is_waiting := v_taken.is_waiting;
        v_sender := v_taken.sender;
    END IF;
    UPDATE users
       SET last_seq = v_accepted.seq, waiting = waiting + v_is_waiting::integer,
           last_accepted_at = v_accepted.accepted_at, sender = v_sender,
           last_written_at = CASE v_kind WHEN 'message'
               THEN greatest(last_written_at, least((p_item ->> 'sent_at')::timestamptz, v_accepted.accepted_at))
               ELSE last_written_at END
     WHERE id = v_user.id;
    IF v_is_waiting AND (v_kind <> 'message' OR v_has_payload OR p_item ?| ARRAY[
            'event', 'closes', 'parts', 'raw', 'quoted', 'author', 'mentioned', 'repairs', 'busy_replies']) THEN
        PERFORM keep_waiting(p_item, v_accepted, v_has_payload);
        IF v_kind = 'message' AND p_item ? 'busy_replies' THEN
            v_is_busy := reject_message(
                v_user, v_accepted, p_item -> 'busy_replies', p_item ->> 'traceparent');
        END IF;
    ELSIF v_is_waiting THEN -- what most are: each column that a statement names costs
        INSERT INTO inbox (user_id, seq, id, channel, external_id, text, button, attachments, route, traceparent,
                           sent_at, accepted_at)
        VALUES (v_user.id, v_accepted.seq, v_accepted.message_id, v_channel, v_external_id,
                coalesce(p_item ->> 'text', ''), p_item ->> 'button', coalesce(p_item -> 'attachments', '[]'),
                nullif(p_item -> 'route', 'null'), p_item ->> 'traceparent', (p_item ->> 'sent_at')::timestamptz,
                v_accepted.accepted_at);
    END IF;
    RETURN json_build_object(
        'outcome', 'accepted', 'user_id', v_user.id, 'message_id', v_accepted.message_id, 'seq', v_accepted.seq,
        'is_waiting', v_is_waiting, 'has_conflict', v_known.others IS NOT NULL,
        'outbox', CASE WHEN v_is_busy THEN waiting_replies(v_user.id) END);
END $$;
