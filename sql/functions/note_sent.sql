-- Takes in that a provider has a reply, whoever says so and whatever was thought of it before: it is `sent`, and moves up
-- by what its provider has said already. Given up, failed or dropped, it is sent all the same. When the provider has
-- another message of it, too, that is a duplicate.
--
-- p_provider_id: the provider's id of it; NULL where it gives none: then it is the reply's own. p_attempt: the number of
-- the request that it accepted: where an earlier one has failed meanwhile, the newest counts.
-- The caller holds the out lane's row lock. Statuses of the same id are kept under the lock of its name: whoever comes
-- second finds what the first has written. Raises lock_not_available when another transaction has that lock, and p_waits
-- is false.
-- Returns whether it was news, the reply's state (NULL: there is no such reply), and whether it is a duplicate.
CREATE OR REPLACE FUNCTION note_sent(
    p_user_id uuid, p_reply_id uuid, p_provider_id text, p_attempt integer, p_waits boolean,
    OUT is_new boolean, OUT state text, OUT is_duplicate boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_reply record;
    v_row outbox;
    v_provider_id text := coalesce(p_provider_id, p_reply_id::text);
BEGIN
    SELECT m.channel, m.state, m.provider_id, m.send_attempts INTO v_reply
      FROM messages m WHERE m.id = p_reply_id AND m.user_id = p_user_id AND m.direction = 'out';
    is_duplicate := false;
    is_new := v_reply.provider_id IS NULL AND v_reply.channel IS NOT NULL;
    state := v_reply.state;
    IF v_reply.channel IS NULL OR v_reply.provider_id = v_provider_id THEN
        RETURN;
    ELSIF NOT lock_name('sent:' || v_reply.channel || ':' || v_provider_id, p_waits) THEN
        RAISE lock_not_available USING MESSAGE = 'another transaction notes what became of the message';
    END IF;
    IF NOT is_new AND v_reply.state = 'failed' AND v_reply.send_attempts = p_attempt THEN
        UPDATE provider_messages SET is_extra = true
         WHERE channel = v_reply.channel AND provider_id = v_reply.provider_id;
        is_new := true;
    END IF;
    INSERT INTO provider_messages (channel, provider_id, user_id, reply_id, is_extra)
    VALUES (v_reply.channel, v_provider_id, p_user_id, p_reply_id, NOT is_new) ON CONFLICT DO NOTHING;

    IF NOT is_new THEN
        is_duplicate := FOUND;
        is_new := FOUND;
        UPDATE messages SET duplicated_at = clock_timestamp()
         WHERE id = p_reply_id AND is_duplicate AND duplicated_at IS NULL;
        RETURN;
    END IF;
    DELETE FROM outbox WHERE id = p_reply_id RETURNING * INTO v_row;
    UPDATE messages
       SET state = 'sent', provider_id = v_provider_id, sent_at = clock_timestamp(),
           send_attempts = coalesce(v_row.requests, send_attempts), failure = NULL, failure_code = NULL, failed_at = NULL,
           given_up_at = NULL
     WHERE id = p_reply_id;
    IF v_reply.state = 'failed' THEN
        DELETE FROM failures_to_tell WHERE reply_id = p_reply_id;
    END IF;
    state := take_kept_statuses(p_reply_id, v_reply.channel, v_provider_id);
    PERFORM mend_channel(v_reply.channel, v_row.sending_at);
END $$;
