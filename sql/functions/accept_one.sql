-- Takes one delivery into its user's order.
--
-- p_delivery: {channel, senders: [preferred first, …], conversation, external_id, kind, text, button, attachments,
--              route, traceparent, sent_at, backlog_max, now}; all but channel, senders and external_id optional.
-- Locks the user's row, then looks for a duplicate, then numbers what is new. A number is given under the lock, so the
-- order of numbers is the order of commits. accepted_at never runs backwards for a user.
-- Returns {outcome, user_id, message_id, seq, is_waiting, has_conflict}. outcome: accepted; duplicate; full (the user
-- has backlog_max waiting messages); skipped (somebody holds what it needs, or it is of a user in p_blocked).
-- has_conflict: the delivery's identifiers are those of several users.
CREATE OR REPLACE FUNCTION accept_one(p_delivery jsonb, p_waits boolean, p_blocked uuid[]) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_channel text := p_delivery ->> 'channel';
    v_external_id text := p_delivery ->> 'external_id';
    v_known record;
    v_user users;
    v_accepted accepted_deliveries;
    v_is_full boolean;
BEGIN
    v_known := find_or_create_user(v_channel, p_delivery, p_waits);
    IF v_known.user_id IS NULL THEN
        RETURN json_build_object('outcome', 'skipped');
    END IF;
    v_user := lock_user(v_known.user_id, p_waits);
    IF v_user.id IS NULL THEN
        RETURN json_build_object('outcome', 'skipped', 'user_id', v_known.user_id);
    END IF;

    v_is_full := v_user.waiting >= coalesce((p_delivery ->> 'backlog_max')::integer, 2147483647);
    IF NOT v_is_full AND v_user.id <> ALL(p_blocked) THEN
        INSERT INTO accepted_deliveries (channel, external_id, user_id, message_id, seq, accepted_at)
        VALUES (v_channel, v_external_id, v_user.id, new_id(), v_user.last_seq + 1,
                greatest(coalesce((p_delivery ->> 'now')::timestamptz, clock_timestamp()), v_user.last_accepted_at))
        ON CONFLICT DO NOTHING
        RETURNING * INTO v_accepted;
    END IF;
    IF v_accepted.message_id IS NULL THEN
        SELECT * INTO v_accepted FROM accepted_deliveries WHERE channel = v_channel AND external_id = v_external_id;
        IF NOT FOUND THEN
            RETURN json_build_object(
                'outcome', CASE WHEN v_is_full THEN 'full' ELSE 'skipped' END, 'user_id', v_user.id);
        END IF;
        RETURN json_build_object(
            'outcome', 'duplicate', 'user_id', v_accepted.user_id, 'message_id', v_accepted.message_id,
            'seq', v_accepted.seq, 'has_conflict', v_known.has_conflict, 'is_waiting', EXISTS (
                SELECT FROM inbox WHERE user_id = v_accepted.user_id AND seq = v_accepted.seq));
    END IF;

    UPDATE users
       SET last_seq = v_accepted.seq, waiting = waiting + 1, last_accepted_at = v_accepted.accepted_at,
           sender = coalesce(p_delivery ->> 'conversation', p_delivery -> 'senders' ->> 0)
     WHERE id = v_user.id;
    INSERT INTO inbox (user_id, seq, id, kind, channel, external_id, text, button, attachments, route, traceparent,
                       sent_at, accepted_at)
    VALUES (v_user.id, v_accepted.seq, v_accepted.message_id, coalesce(p_delivery ->> 'kind', 'message'), v_channel,
            v_external_id, coalesce(p_delivery ->> 'text', ''), p_delivery ->> 'button',
            coalesce(p_delivery -> 'attachments', '[]'), nullif(p_delivery -> 'route', 'null'),
            p_delivery ->> 'traceparent', (p_delivery ->> 'sent_at')::timestamptz, v_accepted.accepted_at);
    RETURN json_build_object(
        'outcome', 'accepted', 'user_id', v_user.id, 'message_id', v_accepted.message_id, 'seq', v_accepted.seq,
        'is_waiting', true, 'has_conflict', v_known.has_conflict);
END $$;
