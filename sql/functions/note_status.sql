-- Notes one thing that a provider says became of a reply.
--
-- p_status: {channel, provider_id, state: sent, delivered, read or failed, key: the reply's own id, participant, at,
--            failure: our word, failure_code}; the last five may be missing.
-- The reply is the one that the provider gave this id; else the key names it, and it is settled by that, whatever we
-- knew. What fits no reply is kept: the reply may not be marked as accepted yet, and is when take_kept_statuses reads it.
-- Locks the user's out lane; of an id that nobody knows, the id.
-- Returns {outcome, user_id, state, goes_on, failed, duplicated}. outcome: moved; known (nothing new); kept; skipped (another
-- transaction has the lock). goes_on: the reply held the user's lane, and does no longer. failed: it is to be told to the
-- bot. duplicated: only now it is known that the reply was sent twice.
CREATE OR REPLACE FUNCTION note_status(p_status jsonb, p_waits boolean) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_channel text := p_status ->> 'channel';
    v_provider_id text := p_status ->> 'provider_id';
    v_reply record := reply_meant(v_channel, v_provider_id, (p_status ->> 'key')::uuid);
BEGIN
    IF v_reply.id IS NULL THEN
        IF NOT lock_name('sent:' || v_channel || ':' || v_provider_id, p_waits) THEN
            RETURN json_build_object('outcome', 'skipped');
        END IF;
        v_reply := reply_meant(v_channel, v_provider_id, NULL);
    END IF;
    IF v_reply.id IS NULL THEN
        RETURN keep_status(p_status);
    END IF;
    IF (lock_out_lane(v_reply.user_id, p_waits)).user_id IS NULL
       AND EXISTS (SELECT FROM out_lanes WHERE user_id = v_reply.user_id) THEN
        RETURN json_build_object('outcome', 'skipped');
    END IF;
    RETURN move_reply(v_reply.id, p_status);
END $$;
