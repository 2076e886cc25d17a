-- Keeps what a provider says of a message until it is known whether, and of which reply: take_kept_statuses reads it then.
-- p_status, and what is returned: see note_status. The caller holds the id's name, or the out lane of the reply that has it.
CREATE OR REPLACE FUNCTION keep_status(p_status jsonb) RETURNS json
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO reply_statuses (channel, provider_id, state, participant, key, at, failure, failure_code)
    VALUES (p_status ->> 'channel', p_status ->> 'provider_id', p_status ->> 'state', coalesce(p_status ->> 'participant', ''),
            (p_status ->> 'key')::uuid, (p_status ->> 'at')::timestamptz, p_status ->> 'failure', p_status ->> 'failure_code')
        ON CONFLICT DO NOTHING;
    RETURN json_build_object('outcome', 'kept');
END $$;
