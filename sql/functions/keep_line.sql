-- Writes an event or an echo that makes no turn into history. p_session_id: NULL when none is open.
CREATE OR REPLACE FUNCTION keep_line(
    p_item jsonb, p_accepted accepted_deliveries, p_session_id uuid, p_has_payload boolean) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO messages (id, user_id, session_id, direction, kind, seq, turn_seq, state, channel, external_id, event,
                          text, button, closes, attachments, parts, raw, has_payload, quoted, author, mentioned, repairs,
                          route, traceparent, sent_at, accepted_at)
    VALUES (p_accepted.message_id, p_accepted.user_id, p_session_id, 'in', p_item ->> 'kind', p_accepted.seq,
            p_accepted.seq, 'processed', p_accepted.channel, p_accepted.external_id, p_item ->> 'event',
            coalesce(p_item ->> 'text', ''), p_item ->> 'button', coalesce((p_item ->> 'closes')::boolean, false),
            coalesce(p_item -> 'attachments', '[]'), p_item -> 'parts', p_item -> 'raw', p_has_payload,
            p_item ->> 'quoted', p_item -> 'author', coalesce((p_item ->> 'mentioned')::boolean, false),
            p_item -> 'repairs', nullif(p_item -> 'route', 'null'), p_item ->> 'traceparent',
            (p_item ->> 'sent_at')::timestamptz, p_accepted.accepted_at);
$$;
