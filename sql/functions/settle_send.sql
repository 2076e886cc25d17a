-- Stores what came of a reply's request, and begins the next one if the lane goes on. Asked again word for word it
-- answers the same, and counts nothing twice.
--
-- p_send: {user_id, fence, token, reply_id, attempt: the request's number, outcome, provider_id, failure: our word,
--          failure_code: the provider's, wait_s, scope: whom the wait is for, user or channel, counts: false gives the
--          attempt back, route: the way from now on, deadline_s: how long a request may take, goes_on: begin the next}.
-- outcome, of the request or of looking for it:
--   accepted   the provider has it. Taken whoever says so, of whatever request
--   not_now    certainly not sent: it waits again
--   never      refused: it has failed
--   broken     so is everything of the channel, which sends no more; no attempt
--   unknown    the request is over, and nobody knows what came of it
--   absent     the provider certainly does not have it: sent again, with the same key, but once; then it has failed
--   resend     nobody knows, and sending it again does no harm, or is wanted
--   give_up    nobody will know: it is `unknown` for good, unless the provider has a later word
--   withhold   its channel has no way to send any more
-- All but accepted are about the last request, while it is not settled. The last four are decisions, which only the
-- holder of the lane makes: the fence guards them, and never what is known. Neither absent nor resend changes anything
-- while the request may still be under way, deadline_s and 5 s after it was begun.
-- Locks the out lane's row, and reads after that.
-- Returns {user_id, outcome, state, has_more, is_duplicate, next}. outcome: settled; already (somebody settled it before,
-- or it was not the last request); fenced (a later lease has written); skipped (another transaction holds the lane).
-- state: the reply's by now; NULL: there is none. has_more: whether more waits. is_duplicate: this was a second message of
-- it. next: the answer of begin_send.
CREATE OR REPLACE FUNCTION settle_send(p_send jsonb, p_waits boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql AS $$
DECLARE
    v_user_id uuid := (p_send ->> 'user_id')::uuid;
    v_reply_id uuid := (p_send ->> 'reply_id')::uuid;
    v_what text := p_send ->> 'outcome';
    v_lane out_lanes := lock_out_lane(v_user_id, p_waits);
    v_row outbox;
    v_sent record;
    v_outcome text;
    v_state text;
    v_is_duplicate boolean := false;
    v_next json;
BEGIN
    IF v_lane.user_id IS NULL AND EXISTS (SELECT FROM out_lanes WHERE user_id = v_user_id) THEN
        RETURN json_build_object('user_id', v_user_id, 'outcome', 'skipped');
    END IF;
    IF v_what = 'accepted' THEN
        v_sent := note_sent(v_user_id, v_reply_id, p_send ->> 'provider_id', (p_send ->> 'attempt')::integer, p_waits);
        v_outcome := CASE WHEN v_sent.is_new THEN 'settled' ELSE 'already' END;
        v_state := v_sent.state;
        v_is_duplicate := v_sent.is_duplicate;
    ELSE
        SELECT * INTO v_row FROM outbox WHERE id = v_reply_id AND user_id = v_user_id;
        IF v_row.id IS NULL OR v_row.state = 'pending' OR v_row.requests <> (p_send ->> 'attempt')::integer THEN
            v_outcome := 'already';
        ELSIF v_what IN ('absent', 'resend', 'give_up', 'withhold')
          AND is_fenced(v_lane.fence, (p_send ->> 'fence')::bigint) THEN
            v_outcome := 'fenced';
        ELSE
            v_outcome := 'settled';
            PERFORM settle_request(v_row, v_what, p_send, p_waits);
        END IF;
        SELECT coalesce(o.state, m.state) INTO v_state
          FROM messages m LEFT JOIN outbox o ON o.id = m.id WHERE m.id = v_reply_id AND m.user_id = v_user_id;
    END IF;

    IF v_outcome <> 'fenced' AND (p_send ->> 'goes_on')::boolean THEN
        v_next := begin_send(p_send, p_waits);
    END IF;
    RETURN json_build_object(
        'user_id', v_user_id, 'outcome', v_outcome, 'state', v_state, 'is_duplicate', v_is_duplicate, 'next', v_next,
        'has_more', CASE WHEN v_next ->> 'outcome' IN ('send', 'unknown', 'wait', 'held') THEN true
                         WHEN v_next ->> 'outcome' = 'idle' THEN false
                         ELSE EXISTS (SELECT FROM outbox WHERE user_id = v_user_id AND turn_seq >= v_lane.from_seq)
                           OR EXISTS (SELECT FROM outbox WHERE user_id = v_user_id) END);
END $$;
