-- Forgets sessions of a channel that ended before p_before, whole: with their messages, replies, calls and steps, and the
-- events between them. Walks those that began after p_after, oldest first: looks at p_looks of them at most, and forgets
-- p_most. What somebody holds, and what something still waits in, is left for the next lap: nobody waits for this.
-- Deliveries stay known as long as all others, so that none comes again.
-- Returns how many it forgot, and the begin of the last that it looked at: NULL at the end of a lap.
-- Plans are kept, and tables grow: one that was made while a table had one page must not read all of it later.
CREATE OR REPLACE FUNCTION forget_sessions(
    p_channel text, p_before timestamptz, p_after timestamptz, p_looks integer, p_most integer,
    OUT forgotten integer, OUT reached timestamptz)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    v_session conversation_sessions;
    v_looks integer := 0;
BEGIN
    forgotten := 0;
    FOR v_session IN
        SELECT * FROM conversation_sessions s
         WHERE s.started_at > p_after AND s.started_at < p_before ORDER BY s.started_at LIMIT p_looks
    LOOP
        v_looks := v_looks + 1;
        reached := v_session.started_at;
        IF v_session.status = 'ended' AND v_session.ended_at < p_before
           AND forget_session(v_session, p_channel, p_before) THEN
            forgotten := forgotten + 1;
        END IF;
        EXIT WHEN forgotten >= p_most;
    END LOOP;
    IF v_looks < p_looks AND forgotten < p_most THEN
        reached := NULL;
    END IF;
END $$;
