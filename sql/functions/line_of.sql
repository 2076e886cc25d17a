-- Writes a waiting message as a turn reads it: see worker/onelane/model.py. p_raw: its raw object, which lies in payloads
-- where it is large. Asks no table, so that PostgreSQL writes it into the statement that calls it.
CREATE OR REPLACE FUNCTION line_of(p_message inbox, p_raw jsonb) RETURNS json
LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'id', p_message.id, 'seq', p_message.seq, 'kind', p_message.kind, 'external_id', p_message.external_id,
        'event', p_message.event, 'text', p_message.text, 'button', p_message.button,
        'attachments', p_message.attachments, 'parts', coalesce(p_message.parts, '{}'), 'quoted', p_message.quoted,
        'author', p_message.author, 'mentioned', p_message.mentioned, 'repairs', coalesce(p_message.repairs, '[]'),
        'raw', p_raw, 'route', p_message.route, 'traceparent', p_message.traceparent, 'sent_at', p_message.sent_at,
        'accepted_at', p_message.accepted_at, 'attempts', p_message.attempts, 'deaths', p_message.deaths,
        'laters', p_message.laters)
$$;
