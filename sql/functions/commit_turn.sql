-- Commits a turn: the message is processed, replies, tool outputs and state are stored, the session is touched.
--
-- outcome: committed; already (somebody committed or buried this message before: finish all the same); fenced (a
-- later lease of this lane has written: drop everything). Compare-and-set on the message's state under the user's
-- row lock: whatever is delivered or run twice, the effects stand once.
-- p_effects: see settle_message. more: whether the user has further waiting messages.
CREATE OR REPLACE FUNCTION commit_turn(
    p_user_id uuid, p_fence bigint, p_message_id uuid, p_session_id uuid, p_effects jsonb DEFAULT '{}',
    OUT outcome text, OUT more boolean, OUT session_ms bigint)
LANGUAGE plpgsql AS $$
DECLARE
    v_user users;
    v_settled record;
BEGIN
    SELECT * INTO v_user FROM users WHERE id = p_user_id FOR UPDATE;
    more := v_user.waiting > 0;
    session_ms := 0;
    IF v_user.fence > p_fence THEN
        outcome := 'fenced';
        RETURN;
    END IF;
    v_settled := settle_message(v_user, p_fence, p_message_id, p_session_id, 'processed', p_effects);
    IF v_settled.more IS NULL THEN
        outcome := 'already';
        RETURN;
    END IF;
    outcome := 'committed';
    more := v_settled.more;
    session_ms := v_settled.session_ms;
END $$;
