-- Hands out a user's lowest reply that is not terminal, to the holder of a lease of the out lane: to be sent, marked
-- `sending` under its fence before the request, or to be settled, when nobody knows what came of its last request.
--
-- p_lease: {user_id, fence, token: the lease's, which tells it from another with the same number, full: channels for which
-- the worker has no place now: nothing of theirs is marked (optional)}.
-- Locks the out lane's row, and reads user, reply and channel after it, in one statement.
-- A reply that is `sending` under our own lease was marked by this very call, whose answer was lost: it is handed out
-- again, and nothing is counted. Under another one, its holder went in the middle: now it is `unknown`.
-- A user who wants no messages gets none: such replies fail here, and the next is looked at.
-- On a broken channel one reply is sent every half a minute, as the probe; that is noted before it is.
-- Returns {user_id, outcome, fence: the newest that has written, wait_ms, channel, reply}. outcome:
--   send      reply is to be sent
--   unknown   what came of reply's last request is to be found out
--   wait      nothing may be sent to the user for wait_ms
--   held      nor by the channel
--   full      channel is one of `full`
--   idle      nothing waits
--   fenced    a later lease has written
--   skipped   another transaction holds the lane
-- reply: all that sending needs, by name. `to`: the user's identifiers, preferred first, of a merged one the winner's.
-- attempt: the number of this request; counted: how many of them counted, this one included. now: the time of all this.
CREATE OR REPLACE FUNCTION begin_send(p_lease jsonb, p_waits boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_user_id uuid := (p_lease ->> 'user_id')::uuid;
    v_fence bigint := (p_lease ->> 'fence')::bigint;
    v_token text := p_lease ->> 'token';
    v_lane out_lanes := lock_out_lane(v_user_id, p_waits);
    v_now timestamptz := clock_timestamp();
    v_from_seq bigint := v_lane.from_seq;
    v_looks integer := 0;
    v_read record;
    v_outcome text;
    v_until timestamptz;
BEGIN
    IF v_lane.user_id IS NULL THEN
        RETURN json_build_object('user_id', v_user_id, 'fence', 0, 'outcome', CASE WHEN EXISTS (
            SELECT FROM outbox WHERE user_id = v_user_id) THEN 'skipped' ELSE 'idle' END);
    ELSIF is_fenced(v_lane.fence, v_fence) THEN
        RETURN json_build_object('user_id', v_user_id, 'fence', v_lane.fence, 'outcome', 'fenced');
    END IF;
    LOOP
        v_looks := v_looks + 1;
        SELECT o.*, m.text, m.attachments, m.parts, m.quoted, m.raw, m.route, m.traceparent, m.accepted_at,
               u.opted_out_at, u.last_written_at, h.broken_at, h.probe_at, h.not_before AS held_until,
               ARRAY(SELECT a.alias FROM user_aliases a WHERE a.user_id = u.id
                      ORDER BY a.alias <> u.sender, a.created_at DESC, a.alias) AS names
          INTO v_read
          FROM (SELECT * FROM outbox WHERE user_id = v_user_id AND turn_seq >= v_from_seq
                 ORDER BY turn_seq, ordinal LIMIT 1) o
          JOIN messages m ON m.id = o.id
          JOIN users whose ON whose.id = o.user_id
          JOIN users u ON u.id = coalesce(whose.merged_into, whose.id)
          LEFT JOIN channel_holds h ON h.channel = o.channel;
        IF v_read.id IS NULL AND v_from_seq > 0 THEN
            v_from_seq := 0;
            CONTINUE;
        END IF;
        EXIT WHEN v_looks > 64 OR v_read.id IS NULL OR v_read.state <> 'pending' OR v_read.opted_out_at IS NULL;
        PERFORM fail_reply(v_read.id, 'opted_out', NULL);
    END LOOP;

    v_until := greatest(v_read.not_before, v_lane.not_before);
    IF v_read.id IS NULL THEN
        v_outcome := 'idle';
    ELSIF v_read.state = 'unknown' THEN
        v_outcome := 'unknown';
    ELSIF v_read.state = 'sending' THEN
        v_outcome := CASE WHEN v_read.fence = v_fence AND v_read.token IS NOT DISTINCT FROM v_token THEN 'send'
                          ELSE 'unknown' END;
    ELSIF v_read.opted_out_at IS NOT NULL THEN -- more of them than one call looks at
        v_outcome := 'wait';
        v_until := v_now;
    ELSIF v_until > v_now THEN
        v_outcome := 'wait';
    ELSIF p_lease -> 'full' ? v_read.channel THEN
        v_outcome := 'full';
    ELSIF v_read.held_until > v_now THEN
        v_outcome := 'held';
        v_until := v_read.held_until;
    ELSIF v_read.broken_at IS NOT NULL AND NOT claim_probe(v_read.channel, v_now, p_waits) THEN
        v_outcome := 'held';
        v_until := greatest(v_read.probe_at, v_now + interval '1 s');
    ELSE
        v_outcome := 'send';
    END IF;

    IF v_outcome = 'send' THEN
        UPDATE outbox
           SET state = 'sending', fence = v_fence, token = v_token, sending_at = v_now,
               first_sent_at = coalesce(first_sent_at, v_now), not_before = NULL, unknown_since = NULL,
               ends_known = false, requests = requests + (v_read.state = 'pending')::integer,
               attempts = attempts + (v_read.state = 'pending')::integer
         WHERE user_id = v_user_id AND turn_seq = v_read.turn_seq AND ordinal = v_read.ordinal
        RETURNING requests, attempts, sending_at, first_sent_at, unknown_since, ends_known
             INTO v_read.requests, v_read.attempts, v_read.sending_at, v_read.first_sent_at, v_read.unknown_since,
                  v_read.ends_known;
    ELSIF v_outcome = 'unknown' AND v_read.state = 'sending' THEN
        UPDATE outbox SET state = 'unknown', unknown_since = v_now
         WHERE user_id = v_user_id AND turn_seq = v_read.turn_seq AND ordinal = v_read.ordinal;
        v_read.unknown_since := v_now;
    END IF;
    IF v_outcome NOT IN ('send', 'unknown') THEN
        RETURN json_build_object(
            'user_id', v_user_id, 'outcome', v_outcome, 'fence', v_lane.fence, 'channel', v_read.channel,
            'wait_ms', ceil(1000 * extract(epoch FROM v_until - v_now))::bigint);
    ELSIF v_lane.fence <> v_fence OR v_lane.from_seq <> v_read.turn_seq THEN
        UPDATE out_lanes SET fence = v_fence, from_seq = v_read.turn_seq WHERE user_id = v_user_id;
    END IF;
    RETURN json_build_object(
        'user_id', v_user_id, 'outcome', v_outcome, 'fence', v_fence, 'reply', json_build_object(
            'id', v_read.id, 'seq', v_read.turn_seq, 'ordinal', v_read.ordinal, 'channel', v_read.channel,
            'to', v_read.names, 'text', v_read.text, 'attachments', v_read.attachments,
            'parts', coalesce(v_read.parts, '{}'), 'quoted', v_read.quoted, 'raw', v_read.raw, 'route', v_read.route,
            'traceparent', v_read.traceparent,
            'attempt', v_read.requests, 'counted', v_read.attempts, 'resent', v_read.resent,
            'accepted_at', v_read.accepted_at, 'first_sent_at', v_read.first_sent_at, 'sending_at', v_read.sending_at,
            'unknown_since', v_read.unknown_since, 'ends_known', v_read.ends_known,
            'last_written_at', v_read.last_written_at, 'now', v_now));
END $$;
