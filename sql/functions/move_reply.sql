-- Moves a reply by what its provider says of it: upwards only, and to the same row in whichever order it is said. The
-- caller holds the user's out lane.
--
-- sent < failed < delivered < read: who has it has it, whatever was said of another try or of another device. Of each
-- state the earliest time counts. In a group the first participant's delivery is the reply's, and nobody's failure is.
-- `failed` counts for the newest request alone: of one that was resent, the first may have failed before. Until it is known
-- which id the newest has, such a status is kept. Nor does it count that an earlier request was `sent`, after it failed.
-- A second id of one reply says that it was sent twice. What is settled leaves the outbox, also in mid-send.
-- p_status, and what is returned: see note_status.
CREATE OR REPLACE FUNCTION move_reply(p_reply_id uuid, p_status jsonb) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_ranks text[] := ARRAY['sent', 'failed', 'delivered', 'read'];
    v_old messages;
    v_new messages;
    v_waiting outbox;
    v_state text := p_status ->> 'state';
    v_at timestamptz := coalesce((p_status ->> 'at')::timestamptz, clock_timestamp());
    v_fails boolean := false;
    v_is_earlier boolean; -- another request had this id
BEGIN
    SELECT * INTO v_old FROM messages WHERE id = p_reply_id;
    SELECT * INTO v_waiting FROM outbox
     WHERE user_id = v_old.user_id AND turn_seq = v_old.turn_seq AND ordinal = v_old.ordinal;
    v_new := v_old;
    v_is_earlier := v_old.provider_id IS NULL AND EXISTS (
        SELECT FROM provider_messages WHERE channel = v_old.channel AND provider_id = p_status ->> 'provider_id');
    IF v_is_earlier AND v_state IN ('sent', 'failed') OR v_state = 'failed' AND (
           p_status ->> 'participant' <> '' OR v_old.provider_id <> p_status ->> 'provider_id'
           OR v_old.state NOT IN ('pending', 'unknown', 'sent')) THEN
        RETURN json_build_object('outcome', 'known', 'user_id', v_old.user_id);
    ELSIF v_state = 'failed' THEN
        IF v_old.provider_id IS NULL AND v_waiting.resent THEN
            RETURN keep_status(p_status);
        END IF;
        v_fails := true;
        v_new.failed_at := v_at;
        v_new.failure := coalesce(p_status ->> 'failure', 'unclear');
        v_new.failure_code := p_status ->> 'failure_code';
    ELSIF v_old.provider_id <> p_status ->> 'provider_id' THEN
        v_new.duplicated_at := coalesce(v_old.duplicated_at, clock_timestamp());
    END IF;

    v_new.send_attempts := coalesce(v_waiting.requests, v_old.send_attempts);
    v_new.provider_id := coalesce(v_old.provider_id, p_status ->> 'provider_id');
    CASE v_state
    WHEN 'sent' THEN v_new.sent_at := least(v_old.sent_at, v_at);
    WHEN 'delivered' THEN v_new.delivered_at := least(v_old.delivered_at, v_at);
    WHEN 'read' THEN v_new.read_at := least(v_old.read_at, v_at);
    ELSE
    END CASE;
    IF array_position(v_ranks, v_state) > coalesce(array_position(v_ranks, v_old.state), 0) THEN
        v_new.state := v_state;
        v_new.given_up_at := NULL;
        IF v_old.state = 'failed' THEN
            v_new.failed_at := NULL;
            v_new.failure := NULL;
            v_new.failure_code := NULL;
            DELETE FROM failures_to_tell WHERE reply_id = v_old.id;
        END IF;
    END IF;

    INSERT INTO provider_messages (channel, provider_id, user_id, reply_id, is_extra)
    VALUES (v_old.channel, p_status ->> 'provider_id', v_old.user_id, v_old.id,
            v_new.provider_id <> p_status ->> 'provider_id') ON CONFLICT DO NOTHING;
    IF v_fails THEN
        INSERT INTO failures_to_tell (reply_id, user_id, word, code, failed_at)
        VALUES (v_old.id, v_old.user_id, v_new.failure, v_new.failure_code, v_at) ON CONFLICT DO NOTHING;
    END IF;
    IF v_new IS DISTINCT FROM v_old THEN
        UPDATE messages
           SET state = v_new.state, provider_id = v_new.provider_id, send_attempts = v_new.send_attempts,
               sent_at = v_new.sent_at,
               delivered_at = v_new.delivered_at, read_at = v_new.read_at, failed_at = v_new.failed_at,
               failure = v_new.failure, failure_code = v_new.failure_code, given_up_at = v_new.given_up_at,
               duplicated_at = v_new.duplicated_at
         WHERE id = v_old.id;
    END IF;
    DELETE FROM outbox
     WHERE user_id = v_old.user_id AND turn_seq = v_old.turn_seq AND ordinal = v_old.ordinal;
    IF NOT v_fails THEN
        PERFORM mend_channel(v_old.channel, v_waiting.sending_at);
    END IF;
    IF v_old.provider_id IS NULL THEN -- what was kept of this id counts now
        v_new.state := take_kept_statuses(v_old.id, v_old.channel, v_new.provider_id);
        v_fails := v_fails OR v_new.state = 'failed';
    END IF;
    RETURN json_build_object(
        'outcome', CASE WHEN v_new IS DISTINCT FROM v_old THEN 'moved' ELSE 'known' END, 'user_id', v_old.user_id,
        'state', v_new.state, 'goes_on', v_waiting.id IS NOT NULL, 'failed', v_fails,
        'duplicated', v_old.duplicated_at IS NULL AND v_new.duplicated_at IS NOT NULL);
END $$;
