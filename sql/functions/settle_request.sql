-- Does to a reply what came of its last request, other than that it was accepted: see settle_send, which has found that
-- this may be done. The caller holds the out lane's row lock.
-- A reply that was refused like this before, and whose channel has been mended by another's since, is refused for what it
-- is: at its fifth request it fails, and does not stop the channel again.
CREATE OR REPLACE FUNCTION settle_request(p_reply outbox, p_outcome text, p_send jsonb, p_waits boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_until timestamptz := v_now + (p_send ->> 'wait_s')::double precision * interval '1 s';
    v_word text := p_send ->> 'failure';
    v_code text := p_send ->> 'failure_code';
    v_is_over boolean := p_reply.ends_known OR v_now >= coalesce(
        p_reply.sending_at + ((p_send ->> 'deadline_s')::double precision + 5) * interval '1 s', v_now);
    v_gives_back boolean := p_outcome = 'broken' OR p_outcome = 'not_now' AND (p_send ->> 'counts')::boolean IS FALSE;
    v_is_itself boolean := p_outcome = 'broken' AND p_reply.requests >= 5 AND p_reply.failure IS NOT DISTINCT FROM v_word
        AND p_reply.failure_code IS NOT DISTINCT FROM v_code
        AND EXISTS (SELECT FROM channel_holds WHERE channel = p_reply.channel AND broken_at IS NULL);
BEGIN
    IF p_outcome = 'never' OR v_is_itself THEN
        PERFORM fail_reply(p_reply.id, coalesce(v_word, 'bad_content'), v_code);
    ELSIF p_outcome = 'absent' AND p_reply.resent AND v_is_over THEN
        PERFORM fail_reply(p_reply.id, coalesce(v_word, 'absent'), v_code);
    ELSIF p_outcome = 'give_up' THEN
        PERFORM end_reply(p_reply.id, 'unknown', v_word, v_code);
        PERFORM take_kept_failures(p_reply.id);
    ELSIF p_outcome = 'withhold' THEN
        PERFORM end_reply(p_reply.id, 'withheld', v_word, v_code);
    ELSIF p_outcome = 'unknown' THEN
        UPDATE outbox
           SET state = 'unknown', unknown_since = coalesce(unknown_since, v_now), ends_known = true, failure = v_word,
               failure_code = v_code
         WHERE id = p_reply.id;
    ELSIF p_outcome IN ('not_now', 'broken') OR p_outcome IN ('absent', 'resend') AND v_is_over THEN
        UPDATE outbox
           SET state = 'pending', attempts = attempts - v_gives_back::integer, failure = coalesce(v_word, failure),
               failure_code = CASE WHEN v_word IS NULL THEN failure_code ELSE v_code END,
               first_sent_at = CASE WHEN attempts > v_gives_back::integer THEN first_sent_at END,
               not_before = CASE WHEN p_outcome IN ('absent', 'resend') THEN v_until END,
               resent = resent OR p_outcome IN ('absent', 'resend')
         WHERE id = p_reply.id;
    END IF;
    IF p_outcome IN ('never', 'not_now') THEN
        PERFORM give_probe_back(p_reply.channel, p_reply.sending_at);
    ELSIF p_outcome = 'broken' AND NOT v_is_itself THEN
        PERFORM hold_channel(
            p_reply.channel, v_now + interval '30 s', p_waits, coalesce(v_word, 'misconfigured'), v_code);
    END IF;
    IF p_outcome = 'not_now' AND p_send ->> 'scope' = 'channel' THEN
        PERFORM hold_channel(p_reply.channel, coalesce(v_until, v_now), p_waits);
    ELSIF p_outcome = 'not_now' THEN
        UPDATE out_lanes SET not_before = greatest(not_before, v_until) WHERE user_id = p_reply.user_id;
    END IF;
    IF p_outcome = 'not_now' AND p_send ->> 'route' IS NOT NULL THEN
        UPDATE messages SET route = p_send -> 'route' WHERE id = p_reply.id;
    END IF;
END $$;
