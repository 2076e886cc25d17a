-- Stores what is to be said to a user, in its order: in history, and what is to be sent in the outbox as well.
--
-- p_replies: [{text, attachments: media, parts: {buttons, template}, quoted: the provider's id of what it answers, raw,
--              failure: why it cannot be sent, in our word, failure_code}, …]; all but text optional.
-- p_turn_seq, p_ordinal: the line that they follow. p_route: the way back. p_accepted_at: when that was asked for.
-- p_withheld: why none of them is to be sent; NULL: they are. p_external_id: names them, where they answer no message.
-- p_traceparent: what they come of, for the span of their request.
-- A reply is `pending`, or terminal at once: `withheld` where nobody is to get it, or the channel has no way to send
-- (no_route); `failed` with any other failure, of which its user's bot is told.
CREATE OR REPLACE FUNCTION store_replies(
    p_user_id uuid, p_channel text, p_session_id uuid, p_turn_seq bigint, p_ordinal integer, p_route jsonb,
    p_accepted_at timestamptz, p_replies jsonb, p_withheld text DEFAULT NULL,
    p_external_id text DEFAULT NULL, p_traceparent text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH made AS (
        INSERT INTO messages (user_id, session_id, direction, turn_seq, ordinal, state, channel, text, attachments, parts,
                              quoted, raw, route, traceparent, accepted_at, external_id, failure, failure_code,
                              failed_at)
        SELECT p_user_id, p_session_id, 'out', p_turn_seq, p_ordinal + nr::integer,
               CASE WHEN why IS NULL THEN 'pending' WHEN why IN (p_withheld, 'no_route') THEN 'withheld'
                    ELSE 'failed' END,
               p_channel, reply ->> 'text', coalesce(reply -> 'attachments', '[]'), nullif(reply -> 'parts', 'null'),
               reply ->> 'quoted', nullif(reply -> 'raw', 'null'), p_route, p_traceparent,
               p_accepted_at, p_external_id, why, CASE WHEN p_withheld IS NULL THEN reply ->> 'failure_code' END,
               CASE WHEN p_withheld IS NULL AND why <> 'no_route' THEN clock_timestamp() END
          FROM jsonb_array_elements(p_replies) WITH ORDINALITY AS r (reply, nr),
               coalesce(p_withheld, reply ->> 'failure') AS why
        RETURNING id, ordinal, state
    )
    INSERT INTO outbox (user_id, turn_seq, ordinal, id, channel)
    SELECT p_user_id, p_turn_seq, ordinal, id, p_channel FROM made WHERE state = 'pending';
    IF p_withheld IS NULL AND p_replies @? '$[*].failure' THEN
        INSERT INTO failures_to_tell (reply_id, user_id, word, code, failed_at)
        SELECT id, user_id, failure, failure_code, failed_at FROM messages
         WHERE user_id = p_user_id AND turn_seq = p_turn_seq AND ordinal > p_ordinal AND state = 'failed';
    END IF;
END $$;
