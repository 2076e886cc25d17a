-- Lets a line wait for its turn, with everything that an adapter may understand. An echo that waits escalates the session
-- that it will lie in.
CREATE OR REPLACE FUNCTION keep_waiting(p_item jsonb, p_accepted accepted_deliveries, p_has_payload boolean) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO inbox (user_id, seq, id, kind, channel, external_id, event, text, button, closes, attachments, parts, raw,
                       has_payload, quoted, author, mentioned, repairs, route, traceparent, sent_at, accepted_at,
                       escalate_at)
    VALUES (p_accepted.user_id, p_accepted.seq, p_accepted.message_id, coalesce(p_item ->> 'kind', 'message'),
            p_accepted.channel, p_accepted.external_id, p_item ->> 'event', coalesce(p_item ->> 'text', ''),
            p_item ->> 'button', coalesce((p_item ->> 'closes')::boolean, false),
            coalesce(p_item -> 'attachments', '[]'), p_item -> 'parts', p_item -> 'raw', p_has_payload,
            p_item ->> 'quoted', p_item -> 'author', coalesce((p_item ->> 'mentioned')::boolean, false),
            p_item -> 'repairs', nullif(p_item -> 'route', 'null'), p_item ->> 'traceparent',
            (p_item ->> 'sent_at')::timestamptz, p_accepted.accepted_at,
            CASE p_item ->> 'kind' WHEN 'echo' THEN p_accepted.accepted_at END);
$$;
