-- Notes that a turn failed by its own fault, and buries its message when the attempts are used up.
--
-- outcome: retry (it goes on waiting, first in its order); dead; paused (poison policy `park`: the user waits for an
-- operator, the message stays first); already; fenced. As with commit_turn, a later lease's writes forbid ours.
-- p_error says where it failed, never what the message said. p_poison: skip, park or apologise (p_apology is sent).
CREATE OR REPLACE FUNCTION fail_turn(
    p_user_id uuid, p_fence bigint, p_message_id uuid, p_session_id uuid,
    p_error text, p_attempts_max integer, p_poison text, p_apology text DEFAULT NULL,
    OUT outcome text, OUT attempts integer, OUT more boolean, OUT session_ms bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_user users;
    v_effects jsonb := '{}';
BEGIN
    SELECT * INTO v_user FROM users WHERE id = p_user_id FOR UPDATE;
    more := v_user.waiting > 0;
    session_ms := 0;
    IF v_user.fence > p_fence THEN
        outcome := 'fenced';
        RETURN;
    END IF;
    -- A suspect stays one: its next attempt runs apart again.
    UPDATE messages SET attempts = attempts + 1, deaths = least(deaths, 2), last_error = left(p_error, 4000)
     WHERE id = p_message_id AND user_id = p_user_id AND state = 'received'
    RETURNING attempts INTO fail_turn.attempts;
    IF NOT FOUND THEN
        outcome := 'already';
        RETURN;
    END IF;
    IF attempts < p_attempts_max THEN
        UPDATE users SET fence = p_fence WHERE id = p_user_id;
        outcome := 'retry';
    ELSIF p_poison = 'park' THEN
        UPDATE users SET fence = p_fence, paused_at = clock_timestamp(), pause_reason = 'poison' WHERE id = p_user_id;
        outcome := 'paused';
    ELSE
        IF p_poison = 'apologise' THEN
            v_effects := jsonb_build_object('replies', jsonb_build_array(jsonb_build_object('text', p_apology)));
        END IF;
        SELECT s.more, s.session_ms INTO more, session_ms
          FROM settle_message(v_user, p_fence, p_message_id, p_session_id, 'dead', v_effects) s;
        outcome := 'dead';
    END IF;
END $$;
