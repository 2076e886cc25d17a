-- Decides which session is a user's at p_at once all that waits is worked off, as far as times alone tell: with waiting
-- messages it may be one that a later of them opens. Noted ends count; what handlers will do does not.
--
-- Looks at what waits up to p_last_seq (NULL: at all), but not at redriven messages: they have their session.
-- The caller holds the user's row lock.
-- Returns session_id, when it is the open one; else the numbers of the waiting messages in it, from opens_seq to
-- last_seq; neither when none is open at p_at. next_seq: the waiting message that runs first, if any waits.
CREATE OR REPLACE FUNCTION session_in_use_at(
    p_user users, p_at timestamptz, p_last_seq bigint DEFAULT NULL,
    OUT session_id uuid, OUT opens_seq bigint, OUT last_seq bigint, OUT next_seq bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_started_at timestamptz;
    v_last_at timestamptz;
    v_message record;
BEGIN
    SELECT s.id, s.started_at, s.last_message_at INTO session_id, v_started_at, v_last_at
      FROM conversation_sessions s WHERE s.user_id = p_user.id AND s.status <> 'ended';
    FOR v_message IN
        SELECT i.seq, i.accepted_at, i.end_at FROM inbox i
         WHERE i.user_id = p_user.id AND i.seq >= p_user.next_seq AND i.session_id IS NULL
           AND i.seq <= coalesce(p_last_seq, p_user.last_seq)
         ORDER BY i.seq
    LOOP
        IF v_started_at IS NULL
           OR should_create_new_session(p_user.channel, v_started_at, v_last_at, v_message.accepted_at) IS NOT NULL THEN
            session_id := NULL;
            opens_seq := v_message.seq;
            v_started_at := v_message.accepted_at;
        END IF;
        v_last_at := v_message.accepted_at;
        last_seq := v_message.seq;
        next_seq := coalesce(next_seq, v_message.seq);
        IF v_message.end_at IS NOT NULL THEN
            v_started_at := NULL;
        END IF;
    END LOOP;
    IF v_started_at IS NULL
       OR should_create_new_session(p_user.channel, v_started_at, v_last_at, p_at) IS NOT NULL THEN
        session_id := NULL;
        opens_seq := NULL;
    END IF;
END $$;
