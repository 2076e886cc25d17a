-- Counts a failed run of a message's handler, once, and decides what becomes of the message: see settle_turn.
-- When what the handler needs is away (`later`), that is no attempt until max_s after the message's first such run.
-- The caller holds the user's row lock, and has compared fence and version. later: {laters: this one counted, left_s,
-- asked_s}, with that outcome. has_more, session_ms: see settle_message; NULL unless the message is dead.
-- attempts: 0 where a batch was divided: its messages run on at once.
CREATE OR REPLACE FUNCTION fail_message(
    p_user users, p_message inbox, p_turn jsonb,
    OUT outcome text, OUT attempts integer, OUT later json, OUT has_more boolean, OUT session_ms bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_failure jsonb := p_turn -> 'failure';
    v_later jsonb := v_failure -> 'later';
    v_laters integer := (v_later ->> 'laters')::integer + 1;
    v_left_s double precision := greatest(0, (v_later ->> 'max_s')::double precision
        - coalesce(extract(epoch FROM clock_timestamp() - p_message.later_since), 0));
    v_is_new boolean := p_message.attempts = (v_failure ->> 'attempts')::integer;
    v_effects jsonb := '{}';
    v_settled record;
BEGIN
    attempts := p_message.attempts;
    -- Asked again, it stays what it was the first time, whatever the clock says by now.
    IF p_message.laters >= v_laters OR v_left_s > 0 AND v_is_new THEN
        UPDATE inbox
           SET laters = greatest(laters, v_laters), later_since = coalesce(later_since, clock_timestamp()),
               deaths = least(deaths, 2),
               last_error = right(concat_ws(': ', v_failure ->> 'error', nullif(v_later ->> 'reason', '')), 4000)
         WHERE user_id = p_user.id AND seq = p_message.seq;
        UPDATE users SET fence = (p_turn ->> 'fence')::bigint WHERE id = p_user.id;
        outcome := 'later';
        later := json_build_object('laters', v_laters, 'left_s', v_left_s, 'asked_s', v_later -> 'asked_s');
        RETURN;
    END IF;

    IF (v_failure ->> 'asks')::boolean AND v_failure ->> 'poison' <> 'park' AND jsonb_array_length(p_turn -> 'seqs') = 1
       AND p_message.attempts + v_is_new::integer >= (v_failure ->> 'attempts_max')::integer THEN
        outcome := 'dying';
        RETURN;
    END IF;
    IF v_is_new THEN
        -- A suspect stays one: its next attempt runs apart again. So does one that hung, or blocked the event loop.
        UPDATE inbox
           SET attempts = attempts + 1, last_error = right(v_failure ->> 'error', 4000),
               deaths = CASE WHEN (v_failure ->> 'is_suspect')::boolean THEN 2 ELSE least(deaths, 2) END
         WHERE user_id = p_user.id AND seq = p_message.seq
        RETURNING * INTO p_message;
    END IF;
    attempts := p_message.attempts;
    IF attempts < (v_failure ->> 'attempts_max')::integer THEN
        UPDATE users SET fence = (p_turn ->> 'fence')::bigint WHERE id = p_user.id;
        outcome := 'retry';
    ELSIF jsonb_array_length(p_turn -> 'seqs') > 1 THEN
        -- One of them is to blame: each runs alone from now on, once.
        UPDATE inbox SET batch_last = seq, attempts = (v_failure ->> 'attempts_max')::integer - 1
         WHERE user_id = p_user.id AND seq = ANY(ARRAY(SELECT jsonb_array_elements_text(p_turn -> 'seqs'))::bigint[]);
        UPDATE users SET fence = (p_turn ->> 'fence')::bigint WHERE id = p_user.id;
        outcome := 'retry';
        attempts := 0;
    ELSIF v_failure ->> 'poison' = 'park' THEN
        IF v_is_new THEN -- asked again, it pauses nobody whom somebody has resumed since
            PERFORM pause_user(p_user.id, 'poison');
        END IF;
        UPDATE users SET fence = (p_turn ->> 'fence')::bigint WHERE id = p_user.id
        RETURNING CASE WHEN paused_at IS NULL THEN 'retry' ELSE 'paused' END INTO outcome;
    ELSE
        IF v_failure ? 'effects' THEN
            v_effects := v_failure -> 'effects';
        ELSIF v_failure ->> 'poison' = 'apologise' THEN
            v_effects := jsonb_build_object('replies', coalesce(v_failure -> 'apologies', '[]'));
        END IF;
        v_settled := settle_message(p_user, p_message, p_turn, 'dead', v_effects);
        outcome := 'dead';
        has_more := v_settled.has_more;
        session_ms := v_settled.session_ms;
    END IF;
END $$;
